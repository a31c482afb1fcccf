# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Data-free knowledge distillation: a small student from a teacher whose data is gone."""

from .utils.dependencies import check_dependencies
from .version import __version__

check_dependencies()

__all__ = ['__version__']
