# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Errors that tell users what to do, checks that raise them, and the filling of registries."""

# Only what imports in milliseconds: `import mmdfkd` passes through here.
from importlib import import_module

from .dependencies import check_dependencies
from .errors import UsageError, check_choice, check_least
from .reporting import report_errors

__all__ = [
    'UsageError',
    'check_choice',
    'check_dependencies',
    'check_least',
    'register_all_modules',
    'report_errors',
]


def register_all_modules(init_default_scope: bool = True) -> None:
    """Fill the registries and make ``mmdfkd`` the default scope, as other OpenMMLab libraries do.

    Args:
        init_default_scope: ``False`` leaves the scope as it is.
    """
    for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
        import_module(f'mmdfkd.{part}')
    if init_default_scope:
        import_module('mmengine.registry').init_default_scope('mmdfkd')
