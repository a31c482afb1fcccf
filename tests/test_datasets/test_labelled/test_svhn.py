# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""SVHN from MATLAB files, in colour and in grey."""

import hashlib
import io

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from mmdfkd.datasets import SVHN
from mmdfkd.datasets.labelled.svhn import parse_mat
from mmdfkd.utils import UsageError

LABELS = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # as published, 10 is the digit 0


def mat(**content):
    stream = io.BytesIO()
    savemat(stream, content)
    return stream.getvalue()


@pytest.fixture
def official(noise, monkeypatch, write_files):
    """Images and the folder with the file of the test split."""
    images = noise(11)
    data = mat(X=images.transpose(1, 2, 3, 0), y=LABELS[:, None].astype(np.uint8))
    published = ['http://localhost/', 'test_32x32.mat', hashlib.md5(data).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, 'split_list', {'test': published})
    monkeypatch.setattr(SVHN, 'counts', {'test': 11})
    return images, write_files('set', {'test_32x32.mat': data})


def test_ten_is_zero(official):
    images, root = official
    test = SVHN(root, 'test')
    np.testing.assert_array_equal(test.images, images)
    assert test.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    theirs = torchvision.datasets.SVHN(root, 'test')
    np.testing.assert_array_equal(test.images, theirs.data.transpose(0, 2, 3, 1))
    assert test.labels.tolist() == theirs.labels.tolist()


def test_grey_has_one_channel(official):
    images, root = official
    test = SVHN(root, 'test', grey=True)
    luma = images @ np.array([0.299, 0.587, 0.114])
    assert test.images.shape == (11, 32, 32, 1)
    np.testing.assert_allclose(test.images[..., 0], luma, atol=1)
    assert len(SVHN(root, 'test').images[0, 0, 0]) == 3  # another entry of the cache


def test_wrong_checksum(official):
    _, root = official
    with open(root / 'test_32x32.mat', 'ab') as file:
        file.write(b'x')
    with pytest.raises(UsageError, match='test_32x32.mat has md5'):
        SVHN(root, 'test')


def test_damaged_and_foreign_files(noise):
    rows = noise(3).transpose(1, 2, 3, 0)
    sound = mat(X=rows, y=np.ones((3, 1)))
    assert parse_mat(sound, 'x').labels == [1, 1, 1]
    for data in (b'', sound[:500], mat(y=LABELS), mat(X=rows, y=LABELS), mat(X=rows / 2, y=[1])):
        with pytest.raises(UsageError, match='my.mat is no SVHN file'):
            parse_mat(data, 'my.mat')
