# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Wide residual networks with pre-activation, for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .parts import check_out_indices, he_initialise


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3 convolution, twice; added to a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution. Where the channels change, the shortcut is a 1x1
            convolution of the *activated* input; else it is the input itself.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H/stride, W/stride)``."""
        activated = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        return self.conv2(out) + shortcut


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-d-k: three groups of (d - 4) / 6 blocks with 16k, 32k and 64k channels.

    A 3x3 stem to 16 channels, groups at strides 1, 2, 2, then the BatchNorm and ReLU that
    pre-activation leaves over; they belong to the last map, which is what is pooled. The maps of
    the first two groups are the sums as they leave the group. No dropout.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv 1605.07146. With a
    linear head for 10 classes WRN-40-2 has 2,243,546 parameters, WRN-16-1 175,066.

    Args:
        depth: Number of layers, 6n + 4: 16, 22, 28, 40, ...
        widen_factor: k.
        in_channels: Channels of the images.
        out_indices: Groups (0 to 2) whose maps are returned, ascending, the last one included.
        raw_last: Return the last group's sum too, ahead of the map that is pooled: with out_indices
            (0, 1, 2) the first three maps are what attention transfer compares.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last map.

    Raises:
        UsageError: If the depth is not 6n + 4, or out_indices are malformed.
    """

    def __init__(
        self,
        depth: int = 40,
        widen_factor: int = 2,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2,),
        raw_last: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth < 10 or depth % 6 != 4:
            raise UsageError(f'WideResNet: depth={depth}, expected 6n + 4: 16, 22, 28 or 40.')
        self.out_indices = check_out_indices('WideResNet', out_indices)
        self.raw_last = raw_last
        widths = [channels * widen_factor for channels in (16, 32, 64)]
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.groups = nn.ModuleList()
        previous = 16
        for group, width in enumerate(widths):
            blocks = []
            for block in range((depth - 4) // 6):
                stride = 2 if group > 0 and block == 0 else 1
                blocks.append(PreActivationBlock(previous, width, stride))
                previous = width
            self.groups.append(nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(previous)
        self.out_channels = previous
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        Those of the groups are ``(B, 16k, H, W)``, ``(B, 32k, H/2, W/2)``, ``(B, 64k, H/4, W/4)``;
        with ``raw_last`` the last of these comes twice, before and after its BatchNorm and ReLU.
        """
        x = self.conv1(images)
        maps = []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        last = F.relu(self.bn(x), inplace=True)
        if self.raw_last:
            return (*(maps[index] for index in self.out_indices), last)
        maps[-1] = last
        return tuple(maps[index] for index in self.out_indices)
