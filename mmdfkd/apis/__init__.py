# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""For people with plain torch modules and no config."""

from .distillation import Distilled, distill
from .methods import Method, list_methods

__all__ = ['Distilled', 'Method', 'distill', 'list_methods']
