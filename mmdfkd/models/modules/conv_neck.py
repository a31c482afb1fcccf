# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The 1x1 convolution between the last map and the pooling of mobile networks."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS


@MODELS.register_module()
class ConvNeck(BaseModule):
    """1x1 convolution without bias, BatchNorm, ReLU: the last layers of ShuffleNetV2, MobileNetV2.

    Args:
        in_channels: Channels of the backbone's last map.
        out_channels: Channels of the map that is pooled.
        init_cfg: As in mmengine; if None, the convolution gets He's normal initialisation.

    Attributes:
        out_channels: As given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        return self.relu(self.bn(self.conv(feature)))
