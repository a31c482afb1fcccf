# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CIFAR-10 and CIFAR-100, from the official pickles or from images in folders."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .archive import File
from .base import LabelledSet
from .download import Download, require_md5
from .reader import Part

CIFAR10_CLASSES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)


class _Cifar(LabelledSet):
    """What the two sets have in common: the layout of their batches."""

    splits = {'train': 'train', 'test': 'test'}
    counts = {'train': 50000, 'test': 10000}
    label_key: str

    def read(self, file: File) -> Part | None:
        path = PurePosixPath(file.name)
        md5 = dict(self._published()[f'{self.split}_list']).get(path.name)
        if md5 is None:
            return None
        name = f'{self.source}: {file.name}'
        data = file.read()
        require_md5(data, name, md5)
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
        published = self._published()
        return [Download(published['url'], published['filename'], published['tgz_md5'])]

    def _published(self) -> dict[str, Any]:
        """Torchvision keeps the addresses and checksums that the publisher gives."""
        import torchvision

        reader = getattr(torchvision.datasets, type(self).__name__)
        keys = ('url', 'filename', 'tgz_md5', 'train_list', 'test_list')
        return {key: getattr(reader, key) for key in keys}


@DATASETS.register_module()
class CIFAR10(_Cifar):
    """CIFAR-10: 50,000 images to train and 10,000 to test, 32 x 32 in colour.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        data_root: ``cifar-10-python.tar.gz``, the folder ``cifar-10-batches-py``, images in
            ``{train,test}/<class>/`` as a folder, tar or zip, or a folder with one of these.
        split: 'train' or 'test'.
        image_size: See :class:`LabelledSet`, as for ``grey`` and ``download``.
        grey: See there.
        download: See there.
    """

    name = 'cifar10'
    home = 'https://www.cs.toronto.edu/~kriz/cifar.html'
    candidates = ('cifar-10-batches-py', 'cifar-10-python.tar.gz', 'cifar10')
    markers = ('data_batch_1', 'train', 'test')
    classes = CIFAR10_CLASSES
    label_key = 'labels'

    def __init__(
        self,
        data_root: str | os.PathLike = 'data/cifar10',
        split: str = 'train',
        image_size: int | None = None,
        grey: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__(data_root, split, image_size, grey, download)


def load_batch(data: bytes, name: str) -> dict[str, Any]:
    """Reads one pickled batch as data: nothing but numpy arrays and plain values is built.

    Args:
        data: Bytes of the pickle.
        name: Name of the file, for messages.

    Returns:
        The dictionary, its keys as strings.

    Raises:
        UsageError: It is damaged, or asks for anything else to be built or called.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding='bytes').load()
    except UsageError as error:
        raise UsageError(f'{name} {error}') from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UsageError(
            f'{name} is no readable pickle ({type(error).__name__}: {error}). Download or copy '
            'it again.'
        ) from error
    if not isinstance(batch, dict):
        raise UsageError(f'{name} holds a {type(batch).__name__}, expected a dictionary.')
    return {k.decode() if isinstance(k, bytes) else str(k): value for k, value in batch.items()}


class _ArraysOnly(pickle.Unpickler):
    _allowed = {
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('_codecs', 'encode'):  # how Python 3 writes bytes for Python 2
            return _encode
        if (module, name) not in self._allowed:
            raise UsageError(
                f'is a pickle that asks for {module}.{name}, which no image set needs; it was '
                'not run. Do not use this file.'
            )
        return super().find_class(module, name)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        raise ValueError(f'unexpected encoding {encoding}')
    return text.encode('latin1')
