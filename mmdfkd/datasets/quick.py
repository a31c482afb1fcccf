# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A few images of any dataset, or random ones where it is not on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.logging import print_log

from mmdfkd.registry import DATASETS, describes
from mmdfkd.utils import UsageError

from .image_pool import ImagePool
from .packed import PackedDataset, none_of_ours


@DATASETS.register_module()
class QuickDataset(PackedDataset):
    """The first images of a dataset, for runs that only show that a config works.

    Random images that stand in for an ``ImagePool`` have no labels either.

    Args:
        dataset: Config of the dataset.
        num_images: At most how many images.
        shape: ``(C, H, W)`` of the random images that stand in where the dataset is missing.
        num_classes: Number of classes of those.
    """

    def __init__(
        self, dataset: dict, num_images: int, shape: Sequence[int], num_classes: int
    ) -> None:
        labels: np.ndarray | None
        try:
            source = DATASETS.build(dataset)
        except UsageError as error:
            print_log(f'{error} Random images stand in for {dataset["type"]}.', 'current')
            random = np.random.default_rng(0)
            channels, height, width = shape
            images = random.integers(0, 256, (num_images, height, width, channels), dtype=np.uint8)
            labels = random.integers(0, num_classes, num_images)
            if describes(DATASETS, dataset, ImagePool):
                labels = None
            metainfo = dict(name=f'random images for {dataset["type"]}')
        else:
            if not isinstance(source, PackedDataset):
                raise none_of_ours('A dataset', source)
            images = np.array(source.images[:num_images])
            labels = None if source.labels is None else source.labels[:num_images]
            metainfo = source.metainfo
        super().__init__(images, labels, metainfo)
