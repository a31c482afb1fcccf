# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The thin residual networks of He et al. for 32x32 images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .parts import he_initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution. The shortcut is a 1x1 convolution with batch
            norm where the shape changes, else the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        # The pixels that a shortcut of a stride needs are picked beforehand where channels are few,
        # with equal results: of large maps, PyTorch's own kernel on a CPU, as of 2.14, writes
        # beyond its memory in the backward pass.
        self.pick = stride if in_channels < 16 else 1
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride // self.pick, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H/stride, W/stride)``."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x if self.pick == 1 else x[:, :, :: self.pick, :: self.pick])
        return F.relu(out, inplace=True)


@MODELS.register_module()
class CifarResNet(BaseModule):
    """Residual network of 6n + 2 layers in three stages, for small images.

    A 3x3 stem, then three stages of n ``BasicBlock`` at strides 1, 2, 2. Source: He et al.,
    "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, section 4.2, with
    projection shortcuts (their option B) where the shape changes. With a linear head on the
    pooled 64 channels, depth 20 has 272,474 parameters for 10 classes, depth 110 has 1,730,714.
    (mmpretrain's ``ResNet_CIFAR`` is the wide 64-to-512 channel family.)

    Args:
        depth: Number of weighted layers including a linear classifier: 8, 14, 20, 32, 110, ...
        widths: Channels of the three stages.
        in_channels: Channels of the images.
        stem_channels: Channels after the first convolution; those of the first stage if None.
            (32 in "ResNet8x4" and "ResNet32x4", whose widths are 64, 128, 256.)
        stem_stride: Stride of the first convolution; 2 quarters the cost.
        out_indices: Stages (0 to 2) whose maps are returned, ascending. Stages after the last
            one named are not built.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last returned map.

    Raises:
        UsageError: If the depth is not 6n + 2, or widths or out_indices are malformed.
    """

    def __init__(
        self,
        depth: int = 8,
        widths: Sequence[int] = (16, 32, 64),
        in_channels: int = 3,
        stem_channels: int | None = None,
        stem_stride: int = 1,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth < 8 or depth % 6 != 2:
            raise UsageError(
                f'CifarResNet: depth={depth}, expected 6n + 2: 8, 14, 20, 32, 44, 56 or 110.'
            )
        if len(widths) != 3:
            raise UsageError(
                f'CifarResNet: widths={tuple(widths)}, expected the channels of three stages, '
                'e.g. (16, 32, 64).'
            )
        indices = tuple(out_indices)
        if not indices or indices != tuple(sorted(set(indices) & {0, 1, 2})):
            raise UsageError(
                f'CifarResNet: out_indices={indices}, expected ascending stages out of 0, 1, 2; '
                '(2,) returns the last map only.'
            )
        self.out_indices = indices
        self.out_channels = widths[indices[-1]]
        previous = stem_channels or widths[0]
        self.conv1 = nn.Conv2d(in_channels, previous, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(previous)
        self.stages = nn.ModuleList()
        for stage in range(indices[-1] + 1):
            blocks = []
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(previous, widths[stage], stride))
                previous = widths[stage]
            self.stages.append(nn.Sequential(*blocks))
        self.strides = tuple(stem_stride * 2**stage for stage in indices)
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        The map of stage i is ``(B, widths[i], H / s, W / s)``, s = stem_stride * 2^i, rounded up.
        """
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def out_size(self, input_size: int) -> int:
        """Return the height of the last map for images ``input_size`` pixels high."""
        return -(-input_size // self.strides[-1])
