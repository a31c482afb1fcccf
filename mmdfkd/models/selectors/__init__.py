# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Selectors: which images of a pool count."""

from .base import Selector
from .confidence_selector import ConfidenceSelector, uncertainty
from .dynamic_selector import DynamicSelector, class_thresholds, combine, ramp
from .random_selector import RandomSelector
from .selection import Selection

__all__ = [
    'ConfidenceSelector',
    'DynamicSelector',
    'RandomSelector',
    'Selection',
    'Selector',
    'class_thresholds',
    'combine',
    'ramp',
    'uncertainty',
]
