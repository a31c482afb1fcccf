# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The version, in one place."""

__version__ = '0.1.0'
