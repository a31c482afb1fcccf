# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One optimiser for each role of a method, and autocast."""

from .autocast import AutocastOptimWrapper
from .role_constructor import RoleOptimWrapperConstructor
from .role_wrapper import RoleOptimWrapper

__all__ = ['AutocastOptimWrapper', 'RoleOptimWrapper', 'RoleOptimWrapperConstructor']
