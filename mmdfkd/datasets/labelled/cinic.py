# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CINIC-10, from the official archive."""

from __future__ import annotations

from mmdfkd.registry import DATASETS

from .base import LabelledSet
from .cifar import CIFAR10_CLASSES
from .download import Download


@DATASETS.register_module()
class CINIC10(LabelledSet):
    """CINIC-10: CIFAR-10's classes from CIFAR-10 and shrunk ImageNet, 90,000 images per split.

    L. Darlow et al., "CINIC-10 Is Not ImageNet or CIFAR-10", 2018,
    https://arxiv.org/abs/1810.03505. A pool made from ImageNet overlaps all three splits.

    Args:
        data_root: ``CINIC-10.tar.gz``, images in ``{train,valid,test}/<class>/`` as a folder,
            tar or zip, or a folder with one of these.
        split: 'train', 'val' or 'test'.
        image_size: As in :class:`LabelledSet`, like the arguments below.
        grey: Grey images.
        download: Fetch the set where it is missing.
    """

    name = 'cinic10'
    home = 'https://datashare.ed.ac.uk/handle/10283/3192'
    splits = {'train': ('train',), 'val': ('valid', 'val'), 'test': ('test',)}
    counts = {'train': 90000, 'val': 90000, 'test': 90000}
    candidates = ('CINIC-10.tar.gz', 'CINIC-10')
    classes = CIFAR10_CLASSES

    def downloads(self) -> list[Download]:
        """The archive of all splits."""
        return [
            Download(
                'https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz',
                'CINIC-10.tar.gz',
                '6ee4d0c996905fe93221de577967a372',
            )
        ]
