# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A forward pass that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .spectral_norm import SpectralNorm


@contextmanager
def statistics_kept(*networks: nn.Module, keep: bool = True) -> Iterator[None]:
    """Inside, BatchNorm uses batch statistics but leaves its running ones alone.

    Spectral norms stay at the estimate they have.
    """
    modules = [module for network in networks if keep for module in network.modules()]
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    spectral = [m for m in modules if isinstance(m, SpectralNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    for estimate in spectral:
        estimate.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for estimate in spectral:
            estimate.training = True
