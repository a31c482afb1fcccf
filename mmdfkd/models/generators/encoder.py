# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The way back: from images to the latents a generator would need."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .generator import uniform_init


@MODELS.register_module()
class VAEEncoder(nn.Module):
    """PRE-DFKD's encoder: a Gaussian over latents for each image.

    Columns of pixels are scaled to length 1. Then convolution, batch norm and leaky ReLU twice,
    every second pixel, a convolution of stride 2 and a batch norm, every second pixel, and one
    linear layer each for mean and log-variance. It has 4,321,872 parameters for 3 x 32 x 32 pixels
    and 1,000 latents.

    Args:
        input_shape: Shape ``(C, H, W)`` of the images, of 6 pixels or more; filled in from the
            teacher.
        latent_size: Length L of a latent; filled in from the decoder.
        widths: Channels after each of the three convolutions.
        eps: Epsilon of the first two batch norms; the published 0.8 was likely meant as a
            momentum. That of the third is 1e-5.
        slope: Negative slope of the activations.
        init_range: Weights start uniformly within plus or minus this, biases at 0; ``None`` leaves
            PyTorch's.

    Raises:
        UsageError: The images are too small.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        latent_size: int,
        widths: Sequence[int] = (64, 128, 128),
        eps: float = 0.8,
        slope: float = 0.2,
        init_range: float | None = 0.08,
    ) -> None:
        super().__init__()
        channels, *sides = input_shape
        if min(sides) < 6:
            raise UsageError(
                f'VAEEncoder halves the side of images three times, so {sides[0]} x {sides[1]} '
                'pixels leave nothing. Give a teacher of larger images (model.teacher.input_shape).'
            )
        first, second, third = widths
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1),
            nn.BatchNorm2d(first, eps=eps),
            nn.LeakyReLU(slope, inplace=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.BatchNorm2d(second, eps=eps),
            nn.LeakyReLU(slope, inplace=True),
            nn.Upsample(scale_factor=0.5),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            nn.BatchNorm2d(third),
            nn.Upsample(scale_factor=0.5),
            nn.Flatten(),
        )
        height, width = ((side // 2 + 1) // 2 // 2 for side in sides)
        self.mean = nn.Linear(third * height * width, latent_size)
        self.log_variance = nn.Linear(third * height * width, latent_size)
        if init_range is not None:
            layers = [m for m in self.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
            uniform_init(layers, init_range)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each ``(B, L)``, of images ``(B, C, H, W)``."""
        features = self.layers(F.normalize(images, dim=2))
        return self.mean(features), self.log_variance(features)
