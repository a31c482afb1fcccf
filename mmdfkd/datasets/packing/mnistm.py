# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MNIST-M: digits blended with patches of photographs."""

from __future__ import annotations

import numpy as np

from mmdfkd.utils import UsageError
from mmdfkd.utils.progress import track

from .decode import UnreadableImage, open_image
from .sources import Source


def blend_digits(
    digits: np.ndarray, photos: Source, seed: int = 0, grey: bool = False
) -> np.ndarray:
    """Makes MNIST-M: ``|digit - patch|`` for each channel of a random patch of a random photograph.

    "Domain-Adversarial Training of Neural Networks", Ganin et al. 2016, section 5.2.3,
    https://arxiv.org/abs/1505.07818. The paper takes its patches from the 500 photographs of
    BSDS500 at full size.

    Args:
        digits: uint8 (N, S, S, 1), white on black.
        photos: The photographs; those smaller than a digit are left out.
        seed: Seed of the choice of photographs and places.
        grey: Turn the patches to grey first; the result then has one channel.

    Returns:
        uint8 (N, S, S, 3), or (N, S, S, 1) where grey.

    Raises:
        UsageError: The digits have another form, or no photograph is large enough.
    """
    if digits.ndim != 4 or digits.shape[3] != 1 or digits.dtype != np.uint8:
        raise UsageError(
            f'The digits are {digits.dtype} of shape {digits.shape}; expected uint8 (N, S, S, 1). '
            'Give MNIST, or another set of white digits on black.'
        )
    count, height, width, _ = digits.shape
    usable = _usable(photos, height, width)
    random = np.random.default_rng(seed)
    choice = random.integers(len(usable), size=count)
    place = random.random((count, 2))
    blended = np.empty((count, height, width, 1 if grey else 3), np.uint8)
    ends = np.bincount(choice, minlength=len(usable)).cumsum()
    by_photo = np.split(np.argsort(choice, kind='stable'), ends[:-1])
    wanted = dict(zip(usable, by_photo, strict=True))
    for position, entry in enumerate(track(photos, 'Blending')):
        mine = wanted.get(position, ())
        if not len(mine):
            continue
        assert not isinstance(entry.content, (UnreadableImage, np.ndarray))
        image = open_image(entry.content).convert('L' if grey else 'RGB')
        photo = np.asarray(image).reshape(image.height, image.width, -1)
        room = np.array([image.height - height + 1, image.width - width + 1])
        for digit in mine:
            top, left = (place[digit] * room).astype(int)
            patch = photo[top : top + height, left : left + width].astype(np.int16)
            blended[digit] = np.abs(digits[digit].astype(np.int16) - patch)
    return blended


def _usable(photos: Source, height: int, width: int) -> list[int]:
    """Returns the positions of the photographs that can be read and are large enough."""
    usable = []
    for position, entry in enumerate(track(photos, 'Looking at the photographs')):
        if isinstance(entry.content, (UnreadableImage, np.ndarray)):
            continue
        try:
            image = open_image(entry.content)
        except UnreadableImage:
            continue
        if image.height >= height and image.width >= width:
            usable.append(position)
    if not usable:
        raise UsageError(
            f'{photos.path} holds no photograph of at least {width} x {height} pixels that can '
            'be read. Give a folder or archive of photographs at full size.'
        )
    return usable
