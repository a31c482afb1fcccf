# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Random resized crop of a whole batch, every sample with a window of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError
from mmdfkd.utils.precision import at_least_float32

from .batch import (
    BatchTransform,
    Device,
    height_width,
    is_channels_last,
    memory_format_of,
    numpy_reads,
)


class ResizedCropParams(NamedTuple):
    """The windows to cut out, in pixels of the input: four int64 ``(B,)``."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@TRANSFORMS.register_module()
class BatchRandomResizedCrop(BatchTransform):
    """Cut a window of random area and aspect ratio from each image and resize it to ``size``.

    Equals torchvision's ``RandomResizedCrop(size, scale, ratio, antialias=antialias)`` per image
    (crop of Szegedy et al., 2015, "Going deeper with convolutions"; bilinear): same distribution
    of windows, and the same pixels. Bilinear resizing is linear and separable: each sample is
    ``V @ (image @ U^T)`` with a column matrix ``U (w, W)`` and a row matrix ``V (h, H)`` that are
    zero outside its window, two batched matrix products. The matrices are dense, so on a CPU images
    of more than 48 x 48 pixels are resized one by one.

    uint8 images come out as those of torchvision's integer kernels (those of CPUs with AVX), to the
    bit as long as windows are at most four times as large as ``size``; beyond, at most one level
    apart. For that, weights are multiples of a power of two and pixels are rounded between the two
    products; float32 holds all these numbers exactly, TF32 on a GPU, which is off unless asked for,
    does not. Floats are torchvision's to about 1e-5 of their range.

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
    # Above so many pixels, a call per image takes less time on a CPU than its products.
    dense_pixels = 48 * 48

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        antialias: bool = True,
    ) -> None:
        self.size = height_width(size, 'BatchRandomResizedCrop')
        self.scale = _range(scale, 'scale')
        self.ratio = _range(ratio, 'ratio')
        self.antialias = antialias
        self.tables: dict[tuple[int, int], Tensor] = {}

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
        large = images.shape[2] * images.shape[3] > self.dense_pixels
        known = images.dtype in (torch.uint8, torch.float32, torch.float64)  # to torch's kernels
        alone = large and known and images.device.type == 'cpu'
        resize = self._one_by_one if alone else self._by_products
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for pixels
            return resize(images, params)

    def _one_by_one(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        """Resize each window by a call of its own."""
        windows = zip(*(each.tolist() for each in params), strict=True)
        resized = [
            F.interpolate(
                image[None, :, top : top + height, left : left + width],
                self.size,
                mode='bilinear',
                antialias=self.antialias,
            )
            for image, (top, left, height, width) in zip(images, windows, strict=True)
        ]
        return torch.cat(resized).contiguous(memory_format=memory_format_of(images))

    def _by_products(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        """Resize all windows by two batched matrix products."""
        batch, channels, height, width = images.shape
        out_height, out_width = self.size
        whole = not images.is_floating_point()
        # (B, H, C, W): the layout in which both products run on plain matrices, without copies.
        rows = images.permute(0, 2, 1, 3)
        if numpy_reads(images):  # twice as fast
            rows = torch.from_numpy(np.ascontiguousarray(rows.numpy()))
        rows = at_least_float32(rows.contiguous())
        columns_of = self._matrices(params.left, params.width, width, out_width, rows.dtype, whole)
        rows_of = self._matrices(params.top, params.height, height, out_height, rows.dtype, whole)
        rows = rows.view(batch, height * channels, width) @ columns_of.transpose(1, 2)
        # Rounded as integer kernels do, by adding a half and cutting off.
        rows = rows.add_(0.5).floor_() if whole else rows
        rows = rows_of @ rows.view(batch, height, channels * out_width)
        rows = rows.add_(0.5) if whole else rows
        rows = rows.view(batch, out_height, channels, out_width)

        is_last = channels == 1 or is_channels_last(images)
        result = torch.empty(
            (batch, channels, *self.size),
            dtype=images.dtype,
            device=images.device,
            memory_format=torch.channels_last if is_last else torch.contiguous_format,
        )
        if not numpy_reads(images):
            return result.copy_(rows.transpose(1, 2))
        # Cutting off first and then moving plane by plane takes a third of that copy's time.
        pixels, planes = result.numpy(), rows.numpy()
        planes = planes.astype(pixels.dtype, copy=False)
        for channel in range(channels):
            pixels[:, channel] = planes[:, :, channel]
        return result

    def _matrices(
        self,
        start: Tensor,
        length: Tensor,
        size: int,
        out_size: int,
        dtype: torch.dtype,
        whole: bool,
    ) -> Tensor:
        """Interpolation matrices ``(B, out_size, size)`` of one axis.

        Args:
            start: First pixels of the windows, ``(B,)``.
            length: How long they are, ``(B,)``.
            size: Pixels of the image.
            out_size: Pixels of the result.
            dtype: Type of the matrices.
            whole: Whether pixels are whole numbers, see :func:`_in_binary`.
        """
        if whole and length.device.type == 'cpu':
            flat, which = self._of_all_lengths(size, out_size), length - 1
        else:  # images may be large and few
            length, order = length.sort()
            flat, which = self._in_rows(length, size, out_size, dtype, whole), order.argsort()
        # Before a row stand the zeros of the one above, whose window is not longer: reading from
        # ``start`` places earlier moves the window.
        row = (which * out_size).view(-1, 1) + torch.arange(out_size, device=which.device)
        first = ((row + 1) * size - start.view(-1, 1)).flatten()
        runs = flat.as_strided((len(flat) - size + 1, size), (1, 1))
        return runs.index_select(0, first).view(len(start), out_size, size)

    def _of_all_lengths(self, size: int, out_size: int) -> Tensor:
        """What :meth:`_in_rows` gives for windows of 1 to ``size`` whole pixels, made once."""
        if (size, out_size) not in self.tables:
            lengths = torch.arange(1, size + 1)
            self.tables[size, out_size] = self._in_rows(
                lengths, size, out_size, torch.float32, whole=True
            )
        return self.tables[size, out_size]

    def _in_rows(
        self, length: Tensor, size: int, out_size: int, dtype: torch.dtype, whole: bool
    ) -> Tensor:
        """Matrices of windows of ascending length that begin at the first pixel.

        Returns:
            Their rows of ``size`` numbers behind each other, zero behind the window, below a row of
            zeros.
        """
        weights = self._weights(length, size, out_size, torch.float64 if whole else dtype)
        if whole:
            weights = _in_binary(weights)
        return F.pad(weights.to(dtype).flatten(), (size, 0))

    def _weights(self, length: Tensor, size: int, out_size: int, dtype: torch.dtype) -> Tensor:
        """Interpolation matrices ``(N, out_size, size)`` of windows that begin at the first pixel.

        With ``step = length / out_size``, output pixel ``i`` is centred on ``(i + 1/2) * step``
        in the window and weighs the window's pixel centres by a triangle that reaches one pixel to
        each side, or ``step`` pixels where antialiasing shrinks; weights are renormalised at the
        window's border. torch takes the pixels from ``int(centre - reach + 1/2)`` to
        ``int(centre + reach + 1/2)``: exactly those on which the triangle is positive, so the
        triangle alone says it all. Without antialiasing torch clamps the centre to the outermost
        pixel centres instead, which is the same: only one pixel is within reach there.
        """
        step = (length.to(dtype) / out_size).view(-1, 1, 1)
        reach = step.clamp(min=1) if self.antialias else torch.ones_like(step)
        pixel = torch.arange(size, device=length.device)
        position = (pixel.to(dtype) + 0.5).where(pixel < length.view(-1, 1, 1), math.inf)
        centre = torch.arange(out_size, device=length.device, dtype=dtype).view(-1, 1) + 0.5
        # The triangle upside down: dividing by its negative sum turns it up.
        weights = (position - centre * step).abs_().sub_(reach).clamp_(max=0)
        return weights.div_(weights.sum(dim=-1, keepdim=True))


def _in_binary(weights: Tensor) -> Tensor:
    """Weights ``(N, h, H)`` as torchvision's kernels have them, of whole numbers below 2**15.

    Each matrix is rounded to multiples of ``2**-p``, with the largest p that leaves room for its
    largest weight.
    """
    room = (2**15 - 0.5) / weights.amax((1, 2), keepdim=True)
    scale = (room.log2().ceil() - 1).exp2()
    return (weights * scale + 0.5).floor() / scale


def _central_window(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest window with an aspect ratio nearest to the image's."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _range(values: Sequence[float], name: str) -> tuple[float, float]:
    pair = tuple(values)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise UsageError(
            f'BatchRandomResizedCrop: {name}={values!r}; give (lowest, highest), both positive.'
        )
    return pair
