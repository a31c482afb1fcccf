# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CIFAR-10 and CIFAR-100, from the official pickles or from images in folders."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .archive import File
from .base import LabelledSet
from .download import Download, require_md5
from .pickles import load_batch
from .reader import Part

CIFAR10_CLASSES = tuple('airplane automobile bird cat deer dog frog horse ship truck'.split())
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()
)


class _Cifar(LabelledSet):
    """What the two sets have in common: the layout of their batches."""

    splits = {'train': ('train',), 'test': ('test',)}
    counts = {'train': 50000, 'test': 10000}
    label_key: str

    def markers(self) -> list[str]:
        """The batches themselves, or folders of images."""
        return [name for name, _ in self._batches()] + super().markers()

    def read(self, file: File) -> Part | None:
        """Reads a batch of this split."""
        path = PurePosixPath(file.name)
        md5 = dict(self._batches()).get(path.name)
        if md5 is None:
            return None
        name = f'{self.source}: {file.name}'
        data = file.read()
        require_md5(data, md5, name)
        batch = load_batch(data, name)
        images, labels = batch.get('data'), batch.get(self.label_key)
        if not (
            isinstance(images, np.ndarray)
            and images.dtype == np.uint8
            and images.shape[1:] == (3072,)
            and isinstance(labels, list)
            and len(labels) == len(images)
        ):
            raise UsageError(
                f"{name} does not hold 'data' uint8 (N, 3072) and N '{self.label_key}', as "
                f'batches of {self.name} do. Download or copy it again.'
            )
        return Part(
            [f'{path.name}/{k:05d}' for k in range(len(images))],
            images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
            labels,
        )

    def downloads(self) -> list[Download]:
        """The archive of all batches."""
        reader = self._torchvision()
        return [Download(reader.url, reader.filename, reader.tgz_md5)]

    def _batches(self) -> list[tuple[str, str]]:
        """Names and checksums of the batches of this split."""
        return getattr(self._torchvision(), f'{self.split}_list')

    def _torchvision(self) -> Any:
        """The reader of torchvision, which keeps the publisher's addresses and checksums."""
        import torchvision

        return getattr(torchvision.datasets, type(self).__name__)


@DATASETS.register_module()
class CIFAR10(_Cifar):
    """CIFAR-10: 50,000 images to train and 10,000 to test, 32 x 32 in colour.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        data_root: ``cifar-10-python.tar.gz``, the folder ``cifar-10-batches-py``, images in
            ``{train,test}/<class>/`` as a folder, tar or zip, or a folder with one of these.
        split: 'train' or 'test'.
        image_size: As in :class:`LabelledSet`, like the arguments below.
        grey: Grey images.
        download: Fetch the set where it is missing.
    """

    name = 'cifar10'
    home = 'https://www.cs.toronto.edu/~kriz/cifar.html'
    candidates = ('cifar-10-batches-py', 'cifar-10-python.tar.gz', 'cifar10')
    classes = CIFAR10_CLASSES
    label_key = 'labels'


@DATASETS.register_module()
class CIFAR100(_Cifar):
    """CIFAR-100: like :class:`CIFAR10`, with 100 fine classes in alphabetical order.

    Args:
        data_root: ``cifar-100-python.tar.gz``, the folder ``cifar-100-python``, images in
            ``{train,test}/<class>/`` as a folder, tar or zip, or a folder with one of these.
        split: 'train' or 'test'.
        image_size: As in :class:`LabelledSet`, like the arguments below.
        grey: Grey images.
        download: Fetch the set where it is missing.
    """

    name = 'cifar100'
    home = 'https://www.cs.toronto.edu/~kriz/cifar.html'
    candidates = ('cifar-100-python', 'cifar-100-python.tar.gz', 'cifar100')
    classes = CIFAR100_CLASSES
    label_key = 'fine_labels'
