# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Methods, one class each, and the bases that they derive from."""

from .base import BaseDistiller
from .cmi import CMI
from .ctkd import CTKD
from .dafl import DAFL
from .ddad import DDAD
from .deepinversion import DeepInversion
from .dfad import DFAD
from .dfnd import DFND
from .dfq import DFQ
from .fast_dfkd import FastDFKD
from .generative import GenerativeDistiller
from .hidfd import HiDFD
from .inversion import InversionDistiller, Synthesis
from .kd import KD
from .kd3 import KD3
from .pre_dfkd import PREDFKD
from .stkd import STKD
from .supervised import Supervised
from .zskt import ZSKT

__all__ = [
    'BaseDistiller',
    'CMI',
    'CTKD',
    'DAFL',
    'DDAD',
    'DFAD',
    'DFND',
    'DFQ',
    'DeepInversion',
    'FastDFKD',
    'GenerativeDistiller',
    'HiDFD',
    'InversionDistiller',
    'KD',
    'KD3',
    'PREDFKD',
    'STKD',
    'Supervised',
    'Synthesis',
    'ZSKT',
]
