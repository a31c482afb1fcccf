# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Random views of images that are still being made, with gradient back to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdfkd.registry import TRANSFORMS


class RandomView(nn.Module):
    """Batch transforms of normalised images: every sample drawn for itself, differentiable.

    What a transform adds at the border is black, as before normalisation, not the mean colour
    that zero stands for in normalised space.

    Args:
        transforms: Configs of batch transforms, in their order.
        mean: The teacher's mean per channel, in units of 0 to 255.
        std: Likewise its standard deviation.
    """

    black: Tensor

    def __init__(
        self, transforms: Sequence[dict], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.transforms = [TRANSFORMS.build(transform) for transform in transforms]
        black = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer('black', black.float().view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """A fresh view ``(N, C, H', W')`` of normalised images ``(N, C, H, W)``."""
        images = images - self.black
        for transform in self.transforms:
            images = transform(images)
        return images + self.black


def crop_view(network: Any, padding: int, flip: bool) -> RandomView:
    """Views shifted by up to ``padding`` pixels, over a black border, mirrored half of the time.

    Args:
        network: A classifier that states shape, mean and standard deviation of its images.
        padding: Pixels added on each side before a window of the old size is cut out.
        flip: Whether to mirror left to right.
    """
    crop = dict(type='BatchRandomCrop', size=network.input_shape[1:], padding=padding)
    return RandomView([crop, *_flips(flip)], network.mean, network.std)


def resized_crop_view(network: Any, scale: Sequence[float], flip: bool) -> RandomView:
    """Windows of random place, area and aspect, enlarged to the whole, mirrored half of the time.

    Args:
        network: As in :func:`crop_view`.
        scale: Lowest and highest area of a window, as a fraction of the image's.
        flip: Whether to mirror left to right.
    """
    crop = dict(type='BatchRandomResizedCrop', size=network.input_shape[1:], scale=scale)
    return RandomView([crop, *_flips(flip)], network.mean, network.std)


def _flips(flip: bool) -> list[dict]:
    return [dict(type='BatchRandomFlip')] if flip else []
