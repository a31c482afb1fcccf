# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""From an image file, whatever its mode, to uint8 pixels of one size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmdfkd.utils import UsageError


def decode_image(data: bytes, name: str, image_size: int | None, grey: bool) -> np.ndarray:
    """Decodes one image file.

    The camera's rotation is applied, the first frame of an animation is taken, transparency is
    laid on white, 16 bits are scaled to 8, and every colour space becomes RGB or grey.

    Args:
        data: The bytes of the file.
        name: Its name, for messages.
        image_size: Side in pixels of the square to squeeze the image into, or None to leave it.
        grey: Whether to return ITU-R 601 luma instead of RGB.

    Returns:
        uint8 of shape (H, W, 3), or (H, W, 1) where grey.

    Raises:
        UsageError: The file is empty, no image, damaged, or has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if not data:
        raise UsageError(f'The image {name} has no bytes. Get the set again, or remove the file.')
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(io.BytesIO(data)) as image:
            if limit is not None and image.width * image.height > limit:
                raise UsageError(
                    f'The image {name} claims {image.width} x {image.height} pixels, more than '
                    f'the {limit:,} that are safe to decode. Shrink or remove the file.'
                )
            image.load()
            pixels = _flatten(ImageOps.exif_transpose(image))
    except UsageError:
        raise
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:
        reason = 'its format is unknown' if isinstance(error, UnidentifiedImageError) else error
        raise UsageError(
            f'The image {name} ({len(data)} bytes) cannot be decoded: {reason}. Get the set '
            'again, or remove the file.'
        ) from error
    return _fit(pixels, image_size, grey)


def fit_array(image: np.ndarray, image_size: int | None, grey: bool) -> np.ndarray:
    """Does to pixels in memory, uint8 (H, W, C), what :func:`decode_image` does to a file."""
    return _fit(
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image), image_size, grey
    )


def _flatten(image: Image.Image) -> Image.Image:
    """Returns the image in mode L or RGB."""
    if image.mode.startswith('I') or image.mode == 'F':
        values = np.asarray(image, dtype=np.float64)
        scale = 257 if values.max(initial=0) > 255 else 1  # 16 bits: 65535 becomes 255
        return Image.fromarray(np.rint(values / scale).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        ground = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(ground, image).convert('RGB')
    return image if image.mode in ('L', 'RGB') else image.convert('RGB')


def _fit(image: Image.Image, image_size: int | None, grey: bool) -> np.ndarray:
    image = image.convert('L' if grey else 'RGB')
    if image_size is not None and image.size != (image_size, image_size):
        # PIL's bilinear filter widens with the reduction, which is what antialiasing means.
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[:, :, None] if grey else pixels
