# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from .base import BaseDistiller
from .ctkd import CTKD
from .dafl import DAFL
from .ddad import DDAD
from .dfad import DFAD
from .dfnd import DFND
from .dfq import DFQ
from .generative import GenerativeDistiller
from .kd import KD
from .kd3 import KD3
from .stkd import STKD
from .supervised import Supervised
from .zskt import ZSKT

__all__ = [
    'BaseDistiller',
    'CTKD',
    'DAFL',
    'DDAD',
    'DFAD',
    'DFND',
    'DFQ',
    'GenerativeDistiller',
    'KD',
    'KD3',
    'STKD',
    'Supervised',
    'ZSKT',
]
