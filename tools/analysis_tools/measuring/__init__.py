# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What ``benchmark.py`` is made of: clocks, runners, profiles, counts of operations."""
