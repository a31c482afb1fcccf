# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pure noise as a pool: the floor that a real pool must beat."""

from __future__ import annotations

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .packed import PackedDataset


@DATASETS.register_module()
class NoisePool(PackedDataset):
    """Independent noise in every pixel, the same for the same seed; held in memory.

    Args:
        num_images: Number of images N.
        image_size: Side of the images in pixels.
        channels: Number of channels C.
        seed: Seed of numpy's PCG64.
        distribution: 'uniform' on 0 to 255, or 'gaussian' with mean 127.5 and deviation 64,
            rounded and clipped to 0 to 255.

    Raises:
        UsageError: A size below one, or an unknown distribution.
    """

    def __init__(
        self,
        num_images: int,
        image_size: int = 32,
        channels: int = 1,
        seed: int = 0,
        distribution: str = 'uniform',
    ) -> None:
        shape = (num_images, image_size, image_size, channels)
        if min(shape) < 1:
            raise UsageError(
                f'NoisePool got num_images={num_images}, image_size={image_size}, '
                f'channels={channels}; each must be 1 or more.'
            )
        random = np.random.Generator(np.random.PCG64(seed))
        if distribution == 'uniform':
            images = random.integers(0, 256, shape, dtype=np.uint8)
        elif distribution == 'gaussian':
            images = np.empty(shape, np.uint8)
            for image_rows in np.array_split(images, -(-num_images // 1024)):
                noise = random.standard_normal(image_rows.shape, dtype=np.float32)
                image_rows[:] = np.rint(noise * 64 + 127.5).clip(0, 255)
        else:
            raise UsageError(
                f"NoisePool knows no distribution={distribution!r}; give 'uniform' or 'gaussian'."
            )
        super().__init__(images, metainfo={'name': f'{distribution}-noise'})
