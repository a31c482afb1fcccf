# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the backbones share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmdfkd.utils import UsageError


def check_out_indices(owner: str, out_indices: Sequence[int], groups: int = 3) -> tuple[int, ...]:
    """Check which groups' maps a backbone returns.

    Args:
        owner: Name of the backbone, for the message.
        out_indices: Numbers of groups, ascending; the last group must be among them, since its map
            is what the classifier pools.
        groups: How many groups there are.

    Raises:
        UsageError: They are not like that.
    """
    indices = tuple(out_indices)
    known = set(range(groups))
    if groups - 1 not in indices or indices != tuple(sorted(set(indices) & known)):
        raise UsageError(
            f'{owner}: out_indices={indices}, expected ascending numbers from 0 to {groups - 1} '
            f'that end in {groups - 1}, for instance {tuple(known)}.'
        )
    return indices


def he_initialise(network: nn.Module) -> None:
    """Give convolutions He's normal initialisation (fan-out) and zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
