# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where runs compute."""

from __future__ import annotations

from mmengine.device import get_device


def choose_device() -> str:
    """The device that mmengine finds, but on a Mac its CPU.

    Apple's ``mps`` has no float64, which folding, crops and figures use, nor all distributions.
    """
    found = get_device()
    return 'cpu' if found == 'mps' else found
