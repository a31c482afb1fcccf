# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""ShuffleNetV1 for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS

from .parts import check_out_indices, conv_bn, he_initialise

STEM = 24
WIDTHS = (240, 480, 960)
BLOCKS = (4, 8, 4)


class ShuffleBlockV1(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1, and a shortcut.

    At stride 2 the shortcut is average-pooled and *concatenated*, so the branch itself yields
    ``out_channels - in_channels``; else both are added.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 1 or 2.
        groups: Groups of both 1x1 convolutions; the first has one group behind the stem.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        branch = out_channels - in_channels if stride == 2 else out_channels
        middle = branch // 4
        self.groups = 1 if in_channels == STEM else groups
        self.reduce = conv_bn(in_channels, middle, 1, groups=self.groups)
        self.depthwise = conv_bn(middle, middle, 3, stride, groups=middle)
        self.expand = conv_bn(middle, branch, 1, groups=groups, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H/stride, W/stride)``."""
        out = F.channel_shuffle(self.reduce(x), self.groups)
        out = self.expand(self.depthwise(out))
        if self.stride == 2:
            out = torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1)
        else:
            out = out + x
        return F.relu(out, inplace=True)


@MODELS.register_module()
class SmallShuffleNetV1(BaseModule):
    """ShuffleNetV1 with three groups and a 1x1 stem, for 32- and 64-pixel images.

    Stem to 24 channels at stride 1, then three stages of 4, 8 and 4 blocks with 240, 480 and 960
    channels, each halving the size. With a linear head for 10 classes it has 862,768 parameters.
    As in the distillation papers, and unlike the original, a ReLU follows the depthwise
    convolution and there is no max-pooling.

    Source: Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for
    Mobile Devices", CVPR 2018, arXiv 1707.01083.

    Args:
        in_channels: Channels of the images.
        groups: Groups of the 1x1 convolutions.
        out_indices: Stages (0 to 2) whose maps are returned, ascending, the last one included.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last map, 960.
    """

    def __init__(
        self,
        in_channels: int = 3,
        groups: int = 3,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_indices = check_out_indices('SmallShuffleNetV1', out_indices)
        self.out_channels = WIDTHS[-1]
        self.stem = conv_bn(in_channels, STEM, 1)
        self.stages = nn.ModuleList()
        previous = STEM
        for width, count in zip(WIDTHS, BLOCKS, strict=True):
            blocks = []
            for block in range(count):
                blocks.append(ShuffleBlockV1(previous, width, 1 if block else 2, groups))
                previous = width
            self.stages.append(nn.Sequential(*blocks))
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        The map of stage i is ``(B, WIDTHS[i], H / 2^(i+1), W / 2^(i+1))``, rounded up.
        """
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[index] for index in self.out_indices)
