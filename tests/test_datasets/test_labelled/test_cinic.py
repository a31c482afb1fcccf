# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CINIC-10 from its archive: three splits."""

import numpy as np
import pytest

from mmdfkd.datasets import CINIC10
from mmdfkd.utils import UsageError


@pytest.fixture
def official(noise, encode, monkeypatch):
    """Images by split and the files, one of each class and split."""
    images = dict(zip(('train', 'valid', 'test'), noise(30).reshape(3, 10, 32, 32, 3), strict=True))
    files = {'README.md': b'', 'imagenet-contributors.csv': b''}
    for split, rows in images.items():
        for name, image in zip(CINIC10.classes, rows, strict=True):
            files[f'{split}/{name}/cifar10-train-{len(files)}.png'] = encode(image)
    monkeypatch.setattr(CINIC10, 'counts', dict.fromkeys(CINIC10.counts, 10))
    return images, files


@pytest.mark.parametrize('place', ['set', 'cinic.tar.gz'])
@pytest.mark.parametrize('split, folder', [('train', 'train'), ('val', 'valid'), ('test', 'test')])
def test_splits(split, folder, place, official, write_files):
    images, files = official
    dataset = CINIC10(write_files(place, files), split)
    np.testing.assert_array_equal(dataset.images, images[folder])
    assert dataset.labels.tolist() == list(range(10))
    assert dataset.metainfo['classes'][1] == 'automobile'


def test_foreign_archive_of_the_published_name(official, write_files):
    _, files = official
    path = write_files('set/CINIC-10.tar.gz', files)
    with pytest.raises(UsageError, match='CINIC-10.tar.gz has md5 .* publisher gives 6ee4d0c9'):
        CINIC10(path.parent)
