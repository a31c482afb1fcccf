# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A forward pass that BatchNorm does not remember."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def statistics_kept(*networks: nn.Module, keep: bool = True) -> Iterator[None]:
    """Inside, BatchNorm uses batch statistics but leaves its running ones alone."""
    modules = [module for network in networks if keep for module in network.modules()]
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
