# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""For people with plain torch modules and no config."""

from .distillation import Distilled, distill
from .export import export_student
from .methods import Method, list_methods

__all__ = ['Distilled', 'Method', 'distill', 'export_student', 'list_methods']
