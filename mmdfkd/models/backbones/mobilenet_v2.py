# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MobileNetV2 for small images."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .parts import check_out_indices, conv_bn, he_initialise

#: Groups of stages at one resolution; a stage is (expansion or None, channels, blocks, stride).
GROUPS = (
    ((1, 16, 1, 1), (None, 24, 2, 1)),
    ((None, 32, 3, 2),),
    ((None, 64, 4, 2), (None, 96, 3, 1)),
    ((None, 160, 3, 2), (None, 320, 1, 1)),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1; added to the input where the shape stays.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Factor on ``in_channels`` in between; the expansion exists for 1 as well.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.is_residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            conv_bn(in_channels, middle, 1),
            conv_bn(middle, middle, 3, stride, groups=middle),
            conv_bn(middle, out_channels, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H/stride, W/stride)``."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


@MODELS.register_module()
class SmallMobileNetV2(BaseModule):
    """MobileNetV2 that shrinks images 16-fold instead of 32-fold, for 32 and 64 pixels.

    A 3x3 stem at stride 2, then seven stages of inverted residuals, in four groups that leave 1/2,
    1/4, 1/8 and 1/16 of the image's size. The last map is linear (no ReLU). The last 1x1
    convolution, to 1,280 channels, is the classifier's neck: ``neck=dict(type='ConvNeck',
    in_channels=160, out_channels=1280)`` for width 0.5. With it and a linear head for 10 classes
    the network of width 0.5 has 697,546 parameters.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
    arXiv 1801.04381, in the small-image form of the distillation papers (plain ReLU).

    Args:
        width: Factor on all channels.
        expansion: Factor inside the inverted residuals.
        in_channels: Channels of the images.
        out_indices: Groups (0 to 3) whose maps are returned, ascending, the last one included.
        init_cfg: As in mmengine; if None, convolutions get He's normal initialisation.

    Attributes:
        out_channels: Channels of the last map.

    Raises:
        UsageError: If the width leaves a layer without channels, or out_indices are malformed.
    """

    def __init__(
        self,
        width: float = 0.5,
        expansion: int = 6,
        in_channels: int = 3,
        out_indices: Sequence[int] = (3,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if int(16 * width) < 1:
            raise UsageError(
                f'SmallMobileNetV2: width={width} leaves a layer no channel; use 1.0 or 0.5.'
            )
        self.out_indices = check_out_indices('SmallMobileNetV2', out_indices, groups=4)
        previous = int(32 * width)
        self.stem = conv_bn(in_channels, previous, 3, 2)
        self.groups = nn.ModuleList()
        for group in GROUPS:
            blocks = []
            for factor, channels, count, stride in group:
                for block in range(count):
                    out = int(channels * width)
                    block_stride = 1 if block else stride
                    blocks.append(
                        InvertedResidual(previous, out, block_stride, factor or expansion)
                    )
                    previous = out
            self.groups.append(nn.Sequential(*blocks))
        self.out_channels = previous
        he_initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)`` to one map per entry of ``out_indices``.

        The map of group i is ``(B, C_i, H / 2^(i+1), W / 2^(i+1))``, rounded up.
        """
        x = self.stem(images)
        maps = []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        return tuple(maps[index] for index in self.out_indices)
