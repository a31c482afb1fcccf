# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""From an image file, whatever it holds, to uint8 pixels of one size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmdfkd.utils import UsageError

from ..packing.decode import UnreadableImage, open_image


def decode_image(data: bytes, name: str, image_size: int | None, grey: bool) -> np.ndarray:
    """Decodes one image file; unlike a pool, a labelled set does without none of its images.

    Args:
        data: The bytes of the file.
        name: Its name, for messages.
        image_size: Side in pixels of the square to squeeze the image into, or None to leave it.
        grey: Whether to return ITU-R 601 luma instead of RGB.

    Returns:
        uint8 of shape (H, W, 3), or (H, W, 1) where grey.

    Raises:
        UsageError: The file is empty, no image, damaged, or an image bomb.
    """
    try:
        image = open_image(data)
    except UnreadableImage as error:
        raise UsageError(
            f'The image {name} ({len(data):,} bytes) cannot be decoded: {error}. Get the set '
            'again, or remove the file.'
        ) from error
    return _fit(image, image_size, grey)


def fit_array(image: np.ndarray, image_size: int | None, grey: bool) -> np.ndarray:
    """Does to pixels in memory, uint8 (H, W, C), what :func:`decode_image` does to a file."""
    fits = image_size is None or image.shape[:2] == (image_size, image_size)
    if fits and image.shape[2] == (1 if grey else 3):
        return np.ascontiguousarray(image)
    pixels = image.squeeze(2) if image.shape[2] == 1 else image
    return _fit(Image.fromarray(pixels), image_size, grey)


def _fit(image: Image.Image, image_size: int | None, grey: bool) -> np.ndarray:
    mode = 'L' if grey else 'RGB'
    if image.mode != mode:
        image = image.convert(mode)
    if image_size is not None and image.size != (image_size, image_size):
        # PIL's bilinear filter widens with the reduction, which is what antialiasing means.
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[:, :, None] if grey else pixels
