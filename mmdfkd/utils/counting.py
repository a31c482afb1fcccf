# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How large a network is, and how much it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .modes import dry_run


def count_parameters(network: nn.Module | None, trained: bool = False) -> int | None:
    """Number of parameters of a network, frozen ones included, or of those that are ``trained``."""
    if network is None:
        return None
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def count_macs(network: Any, shape: Sequence[int] | None = None, *others: Tensor) -> int | None:
    """Multiply-adds of convolutions and linear layers for one image.

    Args:
        network: A classifier, or any other network whose ``shape`` is given.
        shape: Of what it takes instead of an image, without a batch.
        *others: What it takes besides, for a batch of one.
    """
    if network is None:
        return None
    shape = network.input_shape if shape is None else shape
    with dry_run(network, shape) as item, FlopCounterMode(display=False) as counter:
        network(item, *others)
    return counter.get_total_flops() // 2
