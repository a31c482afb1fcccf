# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Crop and flip of a whole batch, every sample with parameters of its own.

Each transform is a callable ``images -> images`` on ``(B, C, H, W)`` tensors, uint8 or float,
contiguous or channels_last (kept), on the device of the batch. It is split into ``draw``, the only
place that is random, and ``apply``, a pure function of the images and the drawn parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError
from mmdfkd.utils.precision import at_least_float32

# The names torchvision and PIL users know -> the names of torch.nn.functional.pad.
_PAD_MODES = {'constant': 'constant', 'reflect': 'reflect', 'edge': 'replicate'}

Device = torch.device | str | None


class CropParams(NamedTuple):
    """Upper left corners of the windows in the *padded* images: two int64 ``(B,)``."""

    top: Tensor
    left: Tensor


class FlipParams(NamedTuple):
    """Which samples are mirrored: bool ``(B,)``."""

    flip: Tensor


class BatchTransform(ABC):
    """Base of the batch transforms: a call draws parameters and applies them."""

    @abstractmethod
    def draw(self, batch: int, height: int, width: int, device: Device = None) -> Any:
        """Draw the parameters of ``batch`` images of ``height`` x ``width`` pixels.

        Randomness comes from torch's global generator of ``device``.
        """

    @abstractmethod
    def apply(self, images: Tensor, params: Any) -> Tensor:
        """Transform ``images (B, C, H, W)`` with ``params``; nothing is random here."""

    def __call__(self, images: Tensor) -> Tensor:
        """Transform ``images (B, C, H, W)`` with freshly drawn parameters."""
        batch, _, height, width = images.shape
        return self.apply(images, self.draw(batch, height, width, images.device))


@TRANSFORMS.register_module()
class BatchRandomCrop(BatchTransform):
    """Pad each image on its four sides and cut a window of ``size`` at a random place.

    Equals torchvision's ``RandomCrop(size, padding, padding_mode=pad_mode)`` called per image.

    Args:
        size: Height and width of the window in pixels; one number means a square.
        padding: Pixels added on every side before the crop, >= 0.
        pad_mode: ``'constant'`` (zeros, black in uint8 images), ``'reflect'`` (mirrored without
            repeating the border) or ``'edge'`` (the border repeated).

    Raises:
        UsageError: For a size, padding or mode that means nothing, or, in the call, where the
            padded images are smaller than the window.
    """

    def __init__(
        self, size: int | Sequence[int], padding: int = 0, pad_mode: str = 'constant'
    ) -> None:
        self.size = height_width(size, 'BatchRandomCrop')
        if not isinstance(padding, int) or padding < 0:
            raise UsageError(
                f'BatchRandomCrop: padding={padding!r}; give one whole number of pixels >= 0.'
            )
        if pad_mode not in _PAD_MODES:
            raise UsageError(
                f'BatchRandomCrop: pad_mode={pad_mode!r} is unknown; '
                f'choose one of {", ".join(map(repr, _PAD_MODES))}.'
            )
        self.padding = padding
        self.pad_mode = pad_mode

    def draw(self, batch: int, height: int, width: int, device: Device = None) -> CropParams:
        """Corners uniform over all places where the window fits into the padded image."""
        room_y = height + 2 * self.padding - self.size[0]
        room_x = width + 2 * self.padding - self.size[1]
        if room_y < 0 or room_x < 0:
            raise UsageError(
                f'BatchRandomCrop: the window of {self.size[0]}x{self.size[1]} does not fit into '
                f'images of {height}x{width} padded by {self.padding}; reduce size, raise padding, '
                'or use BatchRandomResizedCrop, which enlarges.'
            )
        return CropParams(
            top=torch.randint(room_y + 1, (batch,), device=device),
            left=torch.randint(room_x + 1, (batch,), device=device),
        )

    def apply(self, images: Tensor, params: CropParams) -> Tensor:
        """Cut the windows: ``(B, C, H, W) -> (B, C, *size)``, same dtype and memory format."""
        return _windows(self._pad(images), params.top, params.left, self.size)

    def _pad(self, images: Tensor) -> Tensor:
        sides = (self.padding,) * 4
        if self.padding == 0:
            return images
        if self.pad_mode == 'constant':
            return F.pad(images, sides)
        if self.pad_mode == 'reflect' and self.padding >= min(images.shape[-2:]):
            raise UsageError(
                f'BatchRandomCrop: padding={self.padding} cannot be reflected from images of '
                f"{images.shape[-2]}x{images.shape[-1]}; reduce it or use pad_mode='edge'."
            )
        # torch reflects and repeats floats only; float32 holds every uint8 exactly.
        padded = F.pad(at_least_float32(images), sides, mode=_PAD_MODES[self.pad_mode])
        return padded.to(images.dtype)


@TRANSFORMS.register_module()
class BatchRandomFlip(BatchTransform):
    """Mirror each image left to right with probability ``prob``.

    Args:
        prob: Probability in [0, 1].

    Raises:
        UsageError: If ``prob`` is no probability.
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise UsageError(f'BatchRandomFlip: prob={prob!r}; give a probability in [0, 1].')
        self.prob = prob

    def draw(self, batch: int, height: int, width: int, device: Device = None) -> FlipParams:
        """One coin per sample; the image size plays no part."""
        return FlipParams(flip=torch.rand(batch, device=device) < self.prob)

    def apply(self, images: Tensor, params: FlipParams) -> Tensor:
        """Mirror the chosen samples: ``(B, C, H, W)`` to the same shape, dtype and format."""
        if not numpy_reads(images):
            return torch.where(params.flip.view(-1, 1, 1, 1), images.flip(-1), images)
        # torch mirrors many pixels at a time, numpy moves whole images.
        result, is_last = images.clone(), is_channels_last(images)
        pixels = (result.permute(0, 2, 3, 1) if is_last else result).numpy()
        chosen = params.flip.numpy()
        mirrored = torch.from_numpy(pixels[chosen])
        if is_last:
            mirrored = mirrored.permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1)
        else:
            mirrored = mirrored.flip(-1)
        pixels[chosen] = mirrored.numpy()
        return result


def _windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the window of ``size`` at ``(top, left)`` from each image, keeping the memory format."""
    batch, channels, height, width = images.shape
    if not numpy_reads(images):
        sample = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
        y = top.view(-1, 1, 1, 1) + torch.arange(size[0], device=images.device).view(-1, 1)
        x = left.view(-1, 1, 1, 1) + torch.arange(size[1], device=images.device)
        windows = images[sample, channel, y, x]
        return windows.contiguous(memory_format=memory_format_of(images))

    # A view of the windows at all places, of which numpy copies one per sample, row by row.
    is_last = channels == 1 or is_channels_last(images)
    of_sample, of_channel, of_row, of_column = images.stride()
    if is_last:
        window, steps = (*size, channels), (of_row, of_column, of_channel)
    else:
        window, steps = (channels, *size), (of_channel, of_row, of_column)
    windows = images.as_strided(
        (batch, height - size[0] + 1, width - size[1] + 1, *window),
        (of_sample, of_row, of_column, *steps),
    )
    chosen = torch.from_numpy(windows.numpy()[np.arange(batch), top.numpy(), left.numpy()])
    return chosen.permute(0, 3, 1, 2) if is_last else chosen


def numpy_reads(images: Tensor) -> bool:
    """Tells whether numpy can work in the memory of ``images`` and nobody asks for a gradient."""
    return (
        images.device.type == 'cpu' and images.dtype != torch.bfloat16 and not images.requires_grad
    )


def is_channels_last(images: Tensor) -> bool:
    """Tells whether ``(B, C, H, W)`` images lie in memory as (B, H, W, C), and in no other way."""
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def memory_format_of(images: Tensor) -> torch.memory_format:
    """Layout of ``(B, C, H, W)`` images in memory."""
    return torch.channels_last if is_channels_last(images) else torch.contiguous_format


def height_width(size: int | Sequence[int], owner: str) -> tuple[int, int]:
    """Reads one length or two; ``owner`` is named where they mean nothing."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UsageError(
            f'{owner}: size={size!r}; give one positive number of pixels or (height, width).'
        )
    return pair
