# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The classifier ``g``: everything between the pooled feature vector and the logits."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS


@MODELS.register_module()
class ClsHead(BaseModule):
    """Linear classifier on the pooled vector, optionally with hidden layers before it.

    With no hidden layer the parameter names (``fc.weight``, ``fc.bias``) are those of mmpretrain's
    ``LinearClsHead``, so its checkpoints load unchanged.

    Args:
        in_channels: Width of the pooled vector.
        num_classes: Number of classes ``K``.
        hidden_channels: Widths of hidden fully connected layers, each followed by a ReLU
            (LeNet5 has one of 84).
        bias: Whether the last layer has one.
        init_cfg: Initialisation config of mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden_channels: Sequence[int] = (),
        bias: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_classes = num_classes
        layers: list[nn.Module] = []
        for width in hidden_channels:
            layers += [nn.Linear(in_channels, width), nn.ReLU(inplace=True)]
            in_channels = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(in_channels, num_classes, bias)

    def forward(self, vector: Tensor) -> Tensor:
        """Map pooled vectors ``(B, in_channels)`` to logits ``(B, num_classes)``."""
        return self.fc(self.layers(vector))
