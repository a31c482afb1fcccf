# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""SVHN, from the official .mat files."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .archive import File
from .base import LabelledSet
from .download import Download, require_md5
from .reader import Part


@DATASETS.register_module()
class SVHN(LabelledSet):
    """Street View House Numbers, cropped digits: 73,257 to train, 26,032 to test, 32 x 32.

    Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
    2011, http://ufldl.stanford.edu/housenumbers/. In grey it is part of KD³'s pool for MNIST.

    Args:
        data_root: Folder (or tar or zip) with ``train_32x32.mat`` and its companions, or with
            images in ``<split>/<digit>/``.
        split: 'train', 'test' or 'extra' (531,131 easier images).
        image_size: As in :class:`LabelledSet`, like the arguments below.
        grey: Grey images.
        download: Fetch the set where it is missing.
    """

    name = 'svhn'
    home = 'http://ufldl.stanford.edu/housenumbers/'
    splits = {'train': ('train',), 'test': ('test',), 'extra': ('extra',)}
    counts = {'train': 73257, 'test': 26032, 'extra': 531131}
    classes = tuple('0123456789')

    def markers(self) -> list[str]:
        """The file of this split, or folders."""
        return [f'{self.split}_32x32.mat', *super().markers()]

    def read(self, file: File) -> Part | None:
        """Reads the file of this split."""
        if PurePosixPath(file.name).name != f'{self.split}_32x32.mat':
            return None
        name = f'{self.source}: {file.name}'
        data = file.read()
        for published in self.downloads():
            require_md5(data, published.md5 or '', name)
        return parse_mat(data, name)

    def downloads(self) -> list[Download]:
        """The file of this split."""
        from torchvision import datasets

        return [Download(*datasets.SVHN.split_list[self.split])]


def parse_mat(data: bytes, name: str) -> Part:
    """Reads the cropped digits of one split.

    Args:
        data: Bytes of a MATLAB file with ``X`` uint8 (32, 32, 3, N) and ``y`` (N, 1), values 1
            to 10, where 10 stands for the digit 0.
        name: Name of the file, for messages.

    Raises:
        UsageError: It is damaged or of another layout.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(data), variable_names=['X', 'y'])
        images, labels = content['X'], content['y'].ravel().astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise ValueError(f'X is {images.dtype} {images.shape} for {len(labels)} labels')
    except Exception as error:  # a damaged file may raise anything
        raise UsageError(
            f'{name} is no SVHN file with X uint8 (32, 32, 3, N) and y (N, 1) '
            f'({type(error).__name__}: {error}). Download or copy it again.'
        ) from error
    names = [f'{k:06d}' for k in range(len(labels))]
    return Part(names, images.transpose(3, 0, 1, 2), (labels % 10).tolist())
