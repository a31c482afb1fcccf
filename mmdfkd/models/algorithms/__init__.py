# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from .base import BaseDistiller
from .kd import KD
from .kd3 import KD3
from .supervised import Supervised

__all__ = ['KD', 'KD3', 'BaseDistiller', 'Supervised']
