# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Metrics of the student, and where it looks."""

from .grad_cam import grad_cam, map_reach
from .metrics import Accuracy, Agreement

__all__ = ['Accuracy', 'Agreement', 'grad_cam', 'map_reach']
