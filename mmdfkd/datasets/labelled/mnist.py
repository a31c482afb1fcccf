# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MNIST, from the official idx files."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import PurePosixPath

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .archive import File
from .base import LabelledSet
from .download import Download, require_md5
from .reader import Part

_PREFIX = {'train': 'train', 'test': 't10k'}


@DATASETS.register_module()
class MNIST(LabelledSet):
    """MNIST: 60,000 handwritten digits to train and 10,000 to test, 28 x 28, grey.

    Y. LeCun, C. Cortes and C. Burges, 1998. The papers on data-free distillation enlarge the
    images bilinearly to 32 pixels: ``image_size=32``.

    Args:
        data_root: Folder (or tar or zip) with ``train-images-idx3-ubyte``, with or without .gz,
            and its three companions; torchvision's ``MNIST/raw`` in it is found, and so are
            images in ``{train,test}/<digit>/``.
        split: 'train' or 'test'.
        image_size: As in :class:`LabelledSet`, like the argument below.
        download: Fetch the set where it is missing.
    """

    name = 'mnist'
    home = 'https://ossci-datasets.s3.amazonaws.com/mnist/ (a mirror of the original)'
    splits = {'train': ('train', 'training'), 'test': ('test', 'testing')}
    counts = {'train': 60000, 'test': 10000}
    candidates = ('MNIST/raw', 'raw')
    classes = tuple('0123456789')

    def __init__(
        self,
        data_root: str | os.PathLike = 'data/mnist',
        split: str = 'train',
        image_size: int | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(data_root, split, image_size, grey=True, download=download)

    def markers(self) -> list[str]:
        """The images' file as published, unpacked, or as often renamed; or folders."""
        stem = f'{_PREFIX[self.split]}-images'
        names = (f'{stem}-idx3-ubyte.gz', f'{stem}-idx3-ubyte', f'{stem}.idx3-ubyte')
        return [*names, *super().markers()]

    def read(self, file: File) -> Part | None:
        """Reads the file of images or of labels; once it has both, returns them."""
        name = PurePosixPath(file.name).name
        for kind, dimensions in (('images', 3), ('labels', 1)):
            stem = f'{_PREFIX[self.split]}-{kind}-idx{dimensions}-ubyte'
            if name.replace('.idx', '-idx') in (stem, f'{stem}.gz') and kind not in self.notes:
                where = f'{self.source}: {file.name}'
                data = file.read()
                if name in self._published():
                    require_md5(data, self._published()[name], where)
                self.notes[kind] = parse_idx(data, dimensions, where)
                break
        else:
            return None
        if len(self.notes) < 2:
            return None
        images, labels = self.notes['images'], self.notes['labels']
        if len(images) != len(labels):
            raise UsageError(
                f'{self.source} holds {len(images)} images but {len(labels)} labels of MNIST '
                f'{self.split}. Download or copy both files again.'
            )
        names = [f'{k:05d}' for k in range(len(images))]
        return Part(names, images[..., None], labels.tolist())

    def downloads(self) -> list[Download]:
        """The two files of this split."""
        from torchvision import datasets

        mirror = datasets.MNIST.mirrors[0]
        return [
            Download(mirror + name, name, md5)
            for name, md5 in datasets.MNIST.resources
            if name.startswith(_PREFIX[self.split])
        ]

    def _published(self) -> dict[str, str]:
        return {file.filename: file.md5 for file in self.downloads() if file.md5}


def parse_idx(data: bytes, dimensions: int, name: str) -> np.ndarray:
    """Reads an idx file of bytes, gzipped or not.

    Args:
        data: The bytes of the file.
        dimensions: Number of dimensions expected.
        name: Name of the file, for messages.

    Returns:
        uint8 with that many dimensions.

    Raises:
        UsageError: It is truncated, damaged or of another kind.
    """
    try:
        if data[:2] == b'\x1f\x8b':
            data = gzip.decompress(data)
        # Two zeros, the type (8: uint8), the number of dimensions, then their lengths.
        zeros, kind, found, *shape = struct.unpack_from(f'>HBB{dimensions}I', data)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        if (zeros, kind, found) != (0, 8, dimensions):
            raise ValueError(f'it is no idx file of bytes in {dimensions} dimensions')
        return values.reshape(shape)
    except (EOFError, OSError, ValueError, zlib.error, struct.error) as error:
        raise UsageError(f'{name} cannot be read: {error}. Download or copy it again.') from error
