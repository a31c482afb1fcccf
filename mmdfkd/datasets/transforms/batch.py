# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Crop, flip and resized crop of a whole batch, every sample with parameters of its own.

Each transform is a callable ``images -> images`` on ``(B, C, H, W)`` tensors, uint8 or float,
contiguous or channels_last (kept), on the device of the batch. It is split into ``draw``, the only
place that is random, and ``apply``, a pure function of the images and the drawn parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError

# The names torchvision and PIL users know -> the names of torch.nn.functional.pad.
_PAD_MODES = {'constant': 'constant', 'reflect': 'reflect', 'edge': 'replicate'}

# Elements that a resized crop handles at a time on a CPU, where its float copies then stay in the
# cache: 130 images of 3x32x32.
_CPU_BLOCK = 400_000

Device = torch.device | str | None


class CropParams(NamedTuple):
    """Upper left corners of the windows in the *padded* images: two int64 ``(B,)``."""

    top: Tensor
    left: Tensor


class FlipParams(NamedTuple):
    """Which samples are mirrored: bool ``(B,)``."""

    flip: Tensor


class ResizedCropParams(NamedTuple):
    """The windows to cut out, in pixels of the input: four int64 ``(B,)``."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class BatchTransform(ABC):
    """What the transforms of this file share: call = draw, then apply."""

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
        self.size = _height_width(size, 'BatchRandomCrop')
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
        padded = F.pad(_at_least_float32(images), sides, mode=_PAD_MODES[self.pad_mode])
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
        # Both versions of every image in one tensor, then one memory copy per sample: without a
        # device sync, and about three times as fast on a CPU as torch.where.
        flipped = images.flip(-1)
        if _is_channels_last(images):
            images, flipped = images.permute(0, 2, 3, 1), flipped.permute(0, 2, 3, 1)
            return self._choose(images, flipped, params.flip).permute(0, 3, 1, 2)
        return self._choose(images, flipped, params.flip)

    @staticmethod
    def _choose(images: Tensor, flipped: Tensor, flip: Tensor) -> Tensor:
        batch = len(images)
        both = torch.cat([images.reshape(batch, -1), flipped.reshape(batch, -1)])
        chosen = torch.arange(batch, device=images.device) + batch * flip
        return both.index_select(0, chosen).view(images.shape)


@TRANSFORMS.register_module()
class BatchRandomResizedCrop(BatchTransform):
    """Cut a window of random area and aspect ratio from each image and resize it to ``size``.

    Equals torchvision's ``RandomResizedCrop(size, scale, ratio, antialias=antialias)`` per image
    (crop of Szegedy et al., 2015, "Going deeper with convolutions"; bilinear): same distribution
    of windows, and for float images the same pixels to about 1e-5 of their range. uint8 images are
    rounded once, where torchvision's integer kernel rounds between its two passes: at most one
    level apart.

    Bilinear resizing is linear and separable, so each sample is ``V @ image @ U^T`` with a row
    matrix ``V (h, H)`` and a column matrix ``U (w, W)`` that are zero outside its window: two
    batched matrix products for the whole batch. The matrices are dense: right for images of 32 or
    64 pixels, wasteful on a CPU for images of several hundred.

    Args:
        size: Height and width of the result in pixels; one number means a square.
        scale: Lowest and highest area of the window, as a fraction of the image's area.
        ratio: Lowest and highest aspect ratio (width / height), drawn uniformly in its logarithm.
        antialias: Average over all pixels below an output pixel when shrinking.

    Raises:
        UsageError: For a size, scale or ratio that means nothing.
    """

    # torchvision draws up to ten windows until one fits, then takes a central one.
    tries = 10

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        antialias: bool = True,
    ) -> None:
        self.size = _height_width(size, 'BatchRandomResizedCrop')
        self.scale = _range(scale, 'scale')
        self.ratio = _range(ratio, 'ratio')
        self.antialias = antialias

    def draw(self, batch: int, height: int, width: int, device: Device = None) -> ResizedCropParams:
        """The first of ten candidates that fits, else the central window of the nearest ratio."""

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.empty(shape, device=device).uniform_(low, high)

        area = uniform(*self.scale, batch, self.tries) * (height * width)
        aspect = uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), batch, self.tries).exp_()
        heights = (area / aspect).sqrt_().round_()
        widths = (area * aspect).sqrt_().round_()
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)

        # The central window is the eleventh candidate and always fits; argmax takes the first.
        central = _central_window(height, width, self.ratio)
        heights = F.pad(heights, (0, 1), value=central[0])
        widths = F.pad(widths, (0, 1), value=central[1])
        chosen = F.pad(fits.long(), (0, 1), value=1).argmax(dim=1, keepdim=True)

        crop_height = heights.gather(1, chosen).squeeze(1)
        crop_width = widths.gather(1, chosen).squeeze(1)
        room_y, room_x = height - crop_height, width - crop_width
        is_central = chosen.squeeze(1) == self.tries
        top = torch.where(is_central, room_y / 2, uniform(0, 1, batch) * (room_y + 1))
        left = torch.where(is_central, room_x / 2, uniform(0, 1, batch) * (room_x + 1))
        return ResizedCropParams(top.long(), left.long(), crop_height.long(), crop_width.long())

    def apply(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        """Resize the windows: ``(B, C, H, W) -> (B, C, *size)``, same dtype and memory format."""
        if images.device.type != 'cpu':
            return self._resize(images, params)
        block = max(1, _CPU_BLOCK // images[0].numel())
        blocks = zip(images.split(block), *(p.split(block) for p in params), strict=True)
        return torch.cat([self._resize(part, ResizedCropParams(*p)) for part, *p in blocks])

    def _resize(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        batch, channels, height, width = images.shape
        out_height, out_width = self.size
        # (B, H, C, W): the layout in which both products run on plain matrices, without copies.
        rows = _at_least_float32(torch.stack(images.unbind(1), dim=2))
        vertical = self._weights(params.top, params.height, height, out_height, rows.dtype)
        horizontal = self._weights(params.left, params.width, width, out_width, rows.dtype)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for pixels
            rows = rows.view(batch, height * channels, width) @ horizontal.transpose(1, 2)
            rows = vertical @ rows.view(batch, height, channels * out_width)
        rows = rows.view(batch, out_height, channels, out_width)
        if not images.is_floating_point():
            # On a CPU, by way of int16, where both conversions are vectorised: four times as fast.
            rows = rows.round_().to(torch.int16)
        planes = rows.to(images.dtype).unbind(2)
        if _is_channels_last(images):
            return torch.stack(planes, dim=-1).permute(0, 3, 1, 2)
        return torch.stack(planes, dim=1)

    def _weights(
        self, start: Tensor, length: Tensor, size: int, out_size: int, dtype: torch.dtype
    ) -> Tensor:
        """Interpolation matrices ``(B, out_size, size)`` of one axis; rows sum to one.

        With ``step = length / out_size``, output pixel ``i`` is centred on ``(i + 1/2) * step``
        in the window and weighs the window's pixel centres by a triangle that reaches one pixel to
        each side, or ``step`` pixels where antialiasing shrinks; weights are renormalised at the
        window's border. torch takes the pixels from ``int(centre - reach + 1/2)`` to
        ``int(centre + reach + 1/2)``: exactly those on which the triangle is positive, so the
        triangle alone says it all. Without antialiasing torch clamps the centre to the outermost
        pixel centres instead, which is the same: only one pixel is within reach there.
        """
        step = (length.to(dtype) / out_size).view(-1, 1, 1)
        length = length.view(-1, 1, 1)
        reach = step.clamp(min=1) if self.antialias else torch.ones_like(step)
        centre = (torch.arange(out_size, device=start.device, dtype=dtype) + 0.5).view(-1, 1) * step
        pixel = torch.arange(size, device=start.device) - start.view(-1, 1, 1)
        position = (pixel.to(dtype) + 0.5).masked_fill((pixel < 0) | (pixel >= length), math.inf)
        # The triangle upside down: dividing by its negative sum turns it up.
        weights = (position - centre).abs_().sub_(reach).clamp_(max=0)
        return weights.div_(weights.sum(dim=-1, keepdim=True))


def _windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the window of ``size`` at ``(top, left)`` from each image, keeping the memory format."""
    batch, channels, height, width = images.shape
    if images.requires_grad:  # the row copies below would need a far larger gradient buffer
        sample = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
        y = top.view(-1, 1, 1, 1) + torch.arange(size[0], device=images.device).view(-1, 1)
        x = left.view(-1, 1, 1, 1) + torch.arange(size[1], device=images.device)
        windows = images[sample, channel, y, x]
        return windows.contiguous(memory_format=_memory_format(images))

    if _is_channels_last(images):
        planes = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        windows = _plane_windows(planes, top, left * channels, size[0], size[1] * channels)
        return windows.view(batch, *size, channels).permute(0, 3, 1, 2)
    planes = images.reshape(batch * channels, height, width)
    top, left = top.repeat_interleave(channels), left.repeat_interleave(channels)
    return _plane_windows(planes, top, left, *size).view(batch, channels, *size)


def _plane_windows(planes: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut windows ``(N, height, width)`` from contiguous planes ``(N, H, W)``, row by row.

    All runs of ``width`` elements of the memory, overlapping, form a matrix without a copy, and a
    row of a window is a row of it: ``index_select`` copies whole rows, which is many times faster
    than indexing element by element.
    """
    count, plane_height, plane_width = planes.shape
    runs = planes.as_strided((planes.numel() - width + 1, width), (1, 1))
    first = torch.arange(count, device=planes.device) * plane_height + top
    row = first.view(-1, 1) + torch.arange(height, device=planes.device)
    start = row * plane_width + left.view(-1, 1)
    return runs.index_select(0, start.flatten()).view(count, height, width)


def _central_window(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest window with an aspect ratio nearest to the image's."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _is_channels_last(images: Tensor) -> bool:
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def _memory_format(images: Tensor) -> torch.memory_format:
    return torch.channels_last if _is_channels_last(images) else torch.contiguous_format


def _at_least_float32(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _height_width(size: int | Sequence[int], owner: str) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UsageError(
            f'{owner}: size={size!r}; give one positive number of pixels or (height, width).'
        )
    return pair


def _range(values: Sequence[float], name: str) -> tuple[float, float]:
    pair = tuple(values)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise UsageError(
            f'BatchRandomResizedCrop: {name}={values!r}; give (lowest, highest), both positive.'
        )
    return pair
