# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Random resized crop of a whole batch, every sample with a window of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError

from .batch import BatchTransform, Device, at_least_float32, height_width, is_channels_last


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
    of windows, and the same pixels. Bilinear resizing is linear and separable, first along the
    rows, then along the columns; that is used in two ways.

    *uint8 images on a CPU* go through torchvision's integer kernels. All rows to be resized from
    one length, whatever image they come from, are one tall image, and then all columns of one
    length are one wide image: a few dozen calls for the whole batch. The pixels are torchvision's
    to the bit; without antialiasing at most one level apart.

    *Floats, and everything on a GPU,* where the windows' sizes would have to be waited for: each
    sample is ``V @ image @ U^T`` with a row matrix ``V (h, H)`` and a column matrix ``U (w, W)``
    that are zero outside its window, two batched matrix products. Floats are torchvision's to about
    1e-5 of their range; uint8 is rounded once, where torchvision rounds between the two directions
    as well: at most one level apart. The matrices are dense: right for images of 32 or 64 pixels.

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
        self.size = height_width(size, 'BatchRandomResizedCrop')
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
        if images.device.type == 'cpu' and images.dtype == torch.uint8:
            return self.resize_by_length(images, params)
        return self.resize_by_matrix(images, params)

    # By length -----------------------------------------------------------------------------

    def resize_by_length(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        """Resize uint8 images on a CPU, all rows of one length at once, then all columns."""
        rows, begin = self._resize_rows(images.permute(0, 2, 3, 1).contiguous(), params)
        resized = self._resize_columns(rows, begin, params.height).permute(0, 3, 1, 2)
        return resized if is_channels_last(images) else resized.contiguous()

    def _resize_rows(self, images: Tensor, params: ResizedCropParams) -> tuple[Tensor, Tensor]:
        """Cut out the windows' rows and bring each to the width of the result.

        Args:
            images: ``(B, H, W, C)``, contiguous.
            params: Their windows.

        Returns:
            All R rows, ``(R, w * C)``, those of a window behind each other; and where those of
            each window begin, ``(B,)``.
        """
        _, height, width, channels = images.shape
        order = params.width.argsort()
        heights = params.height.index_select(0, order)
        begin = torch.empty_like(order).scatter_(0, order, heights.cumsum(0) - heights)
        # For each row of the result its window, its place in the image, and where it starts there.
        window = order.repeat_interleave(heights)
        row = torch.arange(len(window)) - (begin - params.top).index_select(0, window)
        start = (window * height + row) * width + params.left.index_select(0, window)
        start *= channels

        lengths, counts = _runs(params.width.index_select(0, window))
        rows = images.new_empty(len(window), self.size[1] * channels)
        parts, starts = rows.split(counts.tolist()), start.split(counts.tolist())
        for part, first, length in zip(parts, starts, lengths.tolist(), strict=True):
            # Stretches of memory, overlapping, as rows of a matrix: index_select copies them whole.
            shape = (images.numel() - length * channels + 1, length * channels)
            cut = images.as_strided(shape, (1, 1)).index_select(0, first)
            tall = self._resize(cut.view(1, -1, length, channels), part.shape[0], self.size[1])
            part.copy_(tall.view(part.shape))
        return rows, begin

    def _resize_columns(self, rows: Tensor, begin: Tensor, heights: Tensor) -> Tensor:
        """Bring columns to the height of the result.

        Args:
            rows: ``(R, w * C)``.
            begin: Where the rows of each window begin, ``(B,)``.
            heights: How many they are, ``(B,)``.

        Returns:
            ``(B, h, w, C)``.
        """
        height, width = self.size
        order, row = heights.argsort(), torch.arange(int(heights.max())).view(-1, 1)
        begin, (lengths, counts) = begin[order], _runs(heights[order])
        resized = rows.new_empty(len(order) * height, rows.shape[1])
        parts, begins = resized.split((height * counts).tolist()), begin.split(counts.tolist())
        for part, first, length in zip(parts, begins, lengths.tolist(), strict=True):
            cut = rows.index_select(0, (first + row[:length]).flatten())
            columns = part.shape[0] // height * width
            wide = self._resize(cut.view(1, length, columns, -1), height, columns)
            part.copy_(wide.view(part.shape))
        # The windows of a part lie side by side: the next row of one comes after those of all.
        part_of = torch.arange(len(counts)).repeat_interleave(counts)
        first = (counts.cumsum(0) - counts)[part_of]
        place = first * height + torch.arange(len(order)) - first
        place = place.view(-1, 1) + counts[part_of].view(-1, 1) * torch.arange(height)
        resized = resized.index_select(0, place[order.argsort()].flatten())
        return resized.view(len(order), height, width, -1)

    def _resize(self, image: Tensor, height: int, width: int) -> Tensor:
        """Resize one image ``(1, H, W, C)``; torch must see it as channels_last, to be fast."""
        if image.shape[1:3] == (height, width):
            return image
        image = F.interpolate(
            image.permute(0, 3, 1, 2), (height, width), mode='bilinear', antialias=self.antialias
        )
        return image.permute(0, 2, 3, 1).contiguous()

    # By matrix -----------------------------------------------------------------------------

    def resize_by_matrix(self, images: Tensor, params: ResizedCropParams) -> Tensor:
        """Resize images of any type on any device."""
        batch, channels, height, width = images.shape
        out_height, out_width = self.size
        # (B, H, C, W): the layout in which both products run on plain matrices, without copies.
        rows = at_least_float32(torch.stack(images.unbind(1), dim=2))
        vertical = self._weights(params.top, params.height, height, out_height, rows.dtype)
        horizontal = self._weights(params.left, params.width, width, out_width, rows.dtype)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for pixels
            rows = rows.view(batch, height * channels, width) @ horizontal.transpose(1, 2)
            rows = vertical @ rows.view(batch, height, channels * out_width)
        rows = rows.view(batch, out_height, channels, out_width)
        if not images.is_floating_point():
            rows = rows.round_()
        planes = rows.to(images.dtype).unbind(2)
        if is_channels_last(images):
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


def _runs(ascending: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values that ascending numbers have, and how often each occurs."""
    return ascending.unique_consecutive(return_counts=True)


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
