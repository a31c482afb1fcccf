# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""From the bytes of an image file, whatever they hold, to uint8 pixels of one size."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmdfkd.utils import UsageError, check_choice

FILTERS = {
    'box': Image.Resampling.BOX,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}
MODES = ('squash', 'center-crop')
MAX_FILE_BYTES = 2**28  # no photograph is a quarter of a gibibyte
TOO_LARGE = f'the file is larger than {MAX_FILE_BYTES >> 20} MiB'

# All that Pillow reads without starting another program (EPS would run Ghostscript).
_FORMATS = 'JPEG MPO PNG WEBP GIF BMP DIB TIFF PPM TGA ICO PCX JPEG2000 AVIF'.split()
#: Bytes of an image file, a path to one, or pixels uint8 (H, W, 3) or (H, W, 1).
Content = bytes | str | os.PathLike[str] | np.ndarray

_WIDE = 'its pixels are 32-bit, for which black and white are undefined'
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_MAY_BE_ROTATED = ('exif', 'xmp', 'XML:com.adobe.xmp', 'Raw profile type exif')


class UnreadableImage(ValueError):
    """An image that cannot be decoded; the message is the reason, in a few words."""


class Recipe(NamedTuple):
    """How images become pool images.

    Attributes:
        size: Side S in pixels of the square result.
        filter: A key of ``FILTERS``. All of them average over the pixels below an output pixel,
            that is, they are antialiased.
        mode: 'squash' brings the whole image to the square, as the papers' pools do;
            'center-crop' cuts the largest central square first and keeps proportions.
        grey: Whether to turn colours into ITU-R 601 luma (one channel) first.
    """

    size: int
    filter: Literal['box', 'bilinear', 'bicubic', 'lanczos'] = 'box'
    mode: Literal['squash', 'center-crop'] = 'squash'
    grey: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(S, S, C)`` of one result."""
        return self.size, self.size, 1 if self.grey else 3

    def check(self) -> None:
        """Raises a ``UsageError`` for a value that means nothing."""
        check_choice('filter', self.filter, tuple(FILTERS))
        check_choice('mode', self.mode, MODES)
        if not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise UsageError(
                f'size={self.size!r} is no side of a pool image; give 1 to 4096 pixels.'
            )


def decode_image(content: Content, recipe: Recipe) -> np.ndarray:
    """Decodes and resizes one image.

    Args:
        content: Bytes of an image file, a path to one, or pixels uint8 (H, W, 3) or (H, W, 1).
        recipe: What to make of it.

    Returns:
        uint8 ``recipe.shape``.

    Raises:
        UnreadableImage: It is empty, too large, damaged or no image.
    """
    if isinstance(content, np.ndarray):
        pixels = content[:, :, 0] if content.shape[2] == 1 else content
        return fit(Image.fromarray(pixels), recipe)
    return fit(open_image(content), recipe)


def open_image(content: bytes | str | os.PathLike[str]) -> Image.Image:
    """Decodes one image in its own size, to mode L or RGB.

    Of an animation it is the first frame; a camera's rotation is undone, transparency laid on
    white and 16 bits scaled to 8, so that it looks as a viewer shows it.

    Raises:
        UnreadableImage: It is empty, too large, damaged or no image.
    """
    try:
        return _flatten(_upright(_read(content)))
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise UnreadableImage(_reason(error)) from error


def decode_block(
    contents: Sequence[Content | UnreadableImage], recipe: Recipe
) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes what it can of several images.

    Args:
        contents: What :func:`decode_image` takes, or the reason why it could not be had.
        recipe: What to make of them.

    Returns:
        The readable ones in their order, uint8 (M, S, S, C); and by position the reasons why the
        others are not among them.
    """
    rows = np.empty((len(contents), *recipe.shape), np.uint8)
    reasons: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # odd metadata, and bombs too small to go off
        for position, content in enumerate(contents):
            try:
                if isinstance(content, UnreadableImage):
                    raise content
                rows[position - len(reasons)] = decode_image(content, recipe)
            except UnreadableImage as error:
                reasons[position] = str(error)
    return rows[: len(contents) - len(reasons)], reasons


def fit(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """Resizes an image of mode L or RGB: uint8 ``recipe.shape``."""
    mode = 'L' if recipe.grey else 'RGB'
    if image.mode != mode:
        image = image.convert(mode)
    if recipe.mode == 'center-crop':
        side, (width, height) = min(image.size), image.size
        left, top = round((width - side) / 2), round((height - side) / 2)
        image = image.crop((left, top, left + side, top + side))
    if image.size != (recipe.size, recipe.size):
        image = image.resize((recipe.size, recipe.size), FILTERS[recipe.filter])
    return np.asarray(image).reshape(recipe.shape)


def _read(content: bytes | str | os.PathLike[str]) -> bytes:
    if not isinstance(content, bytes):
        with open(content, 'rb') as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise UnreadableImage(TOO_LARGE)
            content = file.read()
    if not content:
        raise UnreadableImage('the file is empty')
    return content


def _upright(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=_known_formats())
    image.load()
    bits = getattr(image, 'tag_v2', {}).get(_BITS_PER_SAMPLE, (1,))
    if image.mode == 'I' and max(bits) > 16:
        raise UnreadableImage(_WIDE)  # even where all values are small
    if image.format == 'TIFF' or any(key in image.info for key in _MAY_BE_ROTATED):
        image = ImageOps.exif_transpose(image)
    return image


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ('L', 'RGB') and 'transparency' not in image.info:
        return image
    if image.mode.startswith('I'):
        return _from_16_bits(image)
    if image.mode == 'F':
        raise UnreadableImage('its pixels are floats, for which black and white are undefined')
    if image.mode.endswith(('A', 'a')) or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise UnreadableImage(_WIDE)
    return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()  # imports the plugins of this Pillow; AVIF and others may not be among them
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return 'no image format that is read here'  # the message holds an address in memory
    if isinstance(error, Image.DecompressionBombError):
        return 'an image bomb: ' + str(error).split(',')[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
