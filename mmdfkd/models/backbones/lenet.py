# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""LeNet5 of the data-free distillation papers, without its fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .parts import check_out_indices

#: Layers after which a map is complete, the ReLUs.
_ENDS = (2, 5, 7)


class MaxPool(nn.MaxPool2d):
    """2x2 max-pooling that without a graph, on a CPU, takes a sixth of the time: same numbers.

    torch's own also finds out where each maximum is, value by value, for a backward pass. That was
    two thirds of a teacher's forward pass.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """Pool maps ``(B, C, H, W)``; an odd last row or column is left out."""
        if (input.requires_grad and torch.is_grad_enabled()) or input.device.type != 'cpu':
            return super().forward(input)
        height, width = (side // 2 * 2 for side in input.shape[2:])
        rows = input[..., :height, :width]
        rows = torch.maximum(rows[..., ::2, :], rows[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


@MODELS.register_module()
class LeNet5(BaseModule):
    """Convolutions of the LeNet5 used by DAFL, DFND and KD³ on 32x32 digits.

    Three 5x5 convolutions to 6, 16 and 120 channels, each followed by ReLU, with 2x2 max-pooling
    after the first two (LeCun et al. 1998 had tanh and average pooling, as has mmpretrain's
    LeNet5). Pooling stands before ReLU, which then has a quarter of the values to go through: maps
    and gradients are the same to the bit. The hidden layer of 84 units and the classifier belong to
    the head; with those and 10 classes it has 61,706 parameters, the half-width student (3, 8, 60,
    hidden 42) 15,738.

    Source: Chen et al., "Data-Free Learning of Student Networks" (DAFL), ICCV 2019, arXiv
    1904.01186; definition as in github.com/huawei-noah/Efficient-Computing.

    Args:
        width: Factor on the channels: 1.0, or 0.5 for LeNet5-half.
        in_channels: Channels of the images.
        out_indices: Which maps (0 to 2) are returned, ascending, the last one included: after the
            first pooling, the second pooling, the third convolution.
        init_cfg: As in mmengine; PyTorch's default initialisation if None.

    Attributes:
        out_channels: Channels of the last map.

    Raises:
        UsageError: If the width leaves a layer without channels or out_indices are malformed, or,
            in the forward pass, if the images are smaller than 32 pixels.
    """

    def __init__(
        self,
        width: float = 1.0,
        in_channels: int = 1,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        first, second, third = (int(channels * width) for channels in (6, 16, 120))
        if first < 1:
            raise UsageError(
                f'LeNet5: width={width} leaves the first layer no channel; use 1.0 or 0.5.'
            )
        self.out_indices = check_out_indices('LeNet5', out_indices)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, first, 5),
            MaxPool(),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 5),
            MaxPool(),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, third, 5),
            nn.ReLU(inplace=True),
        )
        self.out_channels = third

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, 32, 32)`` to one map per entry of ``out_indices``.

        At width 1 they are ``(B, 6, 14, 14)``, ``(B, 16, 5, 5)``, ``(B, 120, 1, 1)``.
        """
        height, width = images.shape[2:]
        if height < 32 or width < 32:
            raise UsageError(
                f'LeNet5: images of {height}x{width} pixels, expected at least 32x32; pad or '
                'resize them (28-pixel digits are padded by 2 on each side).'
            )
        x, maps = images, []
        for position, layer in enumerate(self.layers):
            x = layer(x)
            if position in _ENDS:
                maps.append(x)
        return tuple(maps[index] for index in self.out_indices)

    @staticmethod
    def out_size(input_size: int) -> int:
        """Return the height of the last map for images ``input_size`` >= 32 pixels high."""
        return ((input_size - 4) // 2 - 4) // 2 - 4
