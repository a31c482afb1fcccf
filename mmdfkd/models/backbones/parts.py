# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the backbones share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmdfkd.utils import UsageError


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """A convolution without bias that keeps the size (at stride 1), BatchNorm, and perhaps ReLU."""
    padding = kernel_size // 2
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
    )
    activation = [nn.ReLU(inplace=True)] if relu else []
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *activation)


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
    last = groups - 1
    if last not in indices or indices != tuple(sorted(set(indices) & set(range(groups)))):
        raise UsageError(
            f'{owner}: out_indices={indices}, expected ascending numbers from 0 to {last} that end '
            f'in {last}, for instance {tuple(range(groups))}.'
        )
    return indices


def he_initialise(network: nn.Module) -> None:
    """Give convolutions He's normal initialisation (fan-out) and zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
