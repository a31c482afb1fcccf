# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""ShuffleNetV2 for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice

from .parts import check_out_indices, conv_bn, he_initialise

STEM = 24
WIDTHS = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704), 2.0: (224, 488, 976)}
BLOCKS = (3, 7, 3)


class ShuffleBlockV2(nn.Module):
    """Half of the channels pass by, half go through 1x1, depthwise 3x3, 1x1; then a shuffle.

    Args:
        channels: Channels of input and output, even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1),
            conv_bn(half, half, 3, groups=half, relu=False),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        passing, worked = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([passing, self.branch(worked)], 1), 2)


class DownBlockV2(nn.Module):
    """Both branches see all channels, halve the size and yield half of the output's channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, even.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.shortcut = nn.Sequential(
            conv_bn(in_channels, in_channels, 3, 2, groups=in_channels, relu=False),
            conv_bn(in_channels, half, 1),
        )
        self.branch = nn.Sequential(
            conv_bn(in_channels, half, 1),
            conv_bn(half, half, 3, 2, groups=half, relu=False),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H/2, W/2)``."""
        return F.channel_shuffle(torch.cat([self.shortcut(x), self.branch(x)], 1), 2)


@MODELS.register_module()
class SmallShuffleNetV2(BaseModule):
    """ShuffleNetV2 with a 1x1 stem, for 32- and 64-pixel images.

    Stem to 24 channels at stride 1, then three stages of a down block and 3, 7 and 3 blocks with
    116, 232 and 464 channels (at width 1), each halving the size. The last 1x1 convolution, to
    1,024 channels, is the classifier's neck: ``neck=dict(type='ConvNeck', in_channels=464,
    out_channels=1024)``. With it and a linear head for 10 classes the network has 1,263,278
    parameters at width 1.

    Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
    ECCV 2018, arXiv 1807.11164, in the small-image form of the distillation papers.

    Args:
        width: Size of the network: 0.5, 1.0, 1.5 or 2.0.
        in_channels: Channels of the images.
        out_indices: Stages (0 to 2) whose maps are returned, ascending, the last one included.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last map.

    Raises:
        UsageError: If width or out_indices are not among the above.
    """

    def __init__(
        self,
        width: float = 1.0,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('SmallShuffleNetV2: width', width, tuple(WIDTHS))
        self.out_indices = check_out_indices('SmallShuffleNetV2', out_indices)
        self.out_channels = WIDTHS[width][-1]
        self.stem = conv_bn(in_channels, STEM, 1)
        self.stages = nn.ModuleList()
        previous = STEM
        for channels, count in zip(WIDTHS[width], BLOCKS, strict=True):
            blocks = [ShuffleBlockV2(channels) for _ in range(count)]
            self.stages.append(nn.Sequential(DownBlockV2(previous, channels), *blocks))
            previous = channels
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        The map of stage i is ``(B, C_i, H / 2^(i+1), W / 2^(i+1))``, rounded up.
        """
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[index] for index in self.out_indices)
