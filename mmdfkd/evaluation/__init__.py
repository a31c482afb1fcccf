# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Metrics of the student."""

from .metrics import Accuracy, Agreement

__all__ = ['Accuracy', 'Agreement']
