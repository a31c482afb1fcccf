# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The floors of the methods: their formulas in plain torch, which ``benchmark.py`` times.

A floor does the forwards and backwards that the method's formula needs and the same optimiser
steps, on resident tensors, and nothing else. It has to give the gradients of the method's own step:
:func:`check_floor` compares them before any clock starts, :func:`check_round` the images of a round
of synthesis. A new method gets a class of its own and a line in :data:`FLOORS`.
"""

from .base import Floor, check_floor, check_round
from .collection import DFNDFloor, KD3Floor, PublishedKD3
from .generation import DAFLFloor, DDADFloor, DFADFloor, DFQFloor, PREDFKDFloor, ZSKTFloor
from .hybrid import HiDFDFloor
from .inversion import CMIFloor, DeepInversionFloor, FastDFKDFloor
from .labelled import CTKDFloor, KDFloor, STKDFloor

#: Floors by the name of their method.
FLOORS: dict[str, type[Floor]] = dict(
    CMI=CMIFloor,
    CTKD=CTKDFloor,
    DAFL=DAFLFloor,
    DDAD=DDADFloor,
    DFAD=DFADFloor,
    DFND=DFNDFloor,
    DFQ=DFQFloor,
    DeepInversion=DeepInversionFloor,
    FastDFKD=FastDFKDFloor,
    HiDFD=HiDFDFloor,
    KD=KDFloor,
    KD3=KD3Floor,
    PREDFKD=PREDFKDFloor,
    STKD=STKDFloor,
    ZSKT=ZSKTFloor,
)

__all__ = ['FLOORS', 'Floor', 'KD3Floor', 'PublishedKD3', 'check_floor', 'check_round']
