# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Batch norm whose scale and shift depend on the class."""

from __future__ import annotations

from torch import Tensor, nn


class ClassConditionalNorm(nn.Module):
    r"""Batch norm with a gain and a bias of each class.

    .. math:: y_i = \hat x_i \, (1 + g_{c_i}) + b_{c_i}

    Source: Brock et al., BigGAN, arXiv 1809.11096, with embeddings of its own in each layer.

    Args:
        channels: Channels C of the maps.
        num_classes: Number of classes K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Normalise maps ``(B, C, H, W)`` of classes ``(B,)``."""
        gain, bias = 1 + self.gain(labels), self.bias(labels)
        return self.norm(maps) * gain[:, :, None, None] + bias[:, :, None, None]
