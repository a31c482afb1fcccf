# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MNIST from idx files."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms.v2 import functional as T

from mmdfkd.datasets import MNIST
from mmdfkd.datasets.labelled import base
from mmdfkd.datasets.labelled.mnist import parse_idx
from mmdfkd.utils import UsageError


def idx(array):
    """The format as its authors describe it: magic number, lengths, bytes; big-endian."""
    lengths = b''.join(struct.pack('>I', length) for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.fixture
def official(noise, monkeypatch):
    """Images, labels and the two files of the test split, with ten images."""
    monkeypatch.setattr(MNIST, 'counts', {'test': 10})
    images, labels = noise(10, 28, 1), np.arange(10)[::-1]
    files = {
        't10k-images-idx3-ubyte': idx(images[..., 0]),
        't10k-labels-idx1-ubyte': idx(labels),
    }
    zipped = {f'{name}.gz': gzip.compress(data) for name, data in files.items()}
    published = [(name, hashlib.md5(data).hexdigest()) for name, data in zipped.items()]
    published += torchvision.datasets.MNIST.resources[:2]  # those of the training split
    monkeypatch.setattr(torchvision.datasets.MNIST, 'resources', published)
    return images, labels, files, zipped


@pytest.mark.parametrize('folder', ['', 'MNIST/raw/', 'raw/'])
@pytest.mark.parametrize('kind', ['plain', 'gz', 'both', 'dotted', 'zip'])
def test_layouts(kind, folder, official, write_files):
    images, labels, files, zipped = official
    present = {
        'plain': files,
        'gz': zipped,
        'both': files | zipped,
        'dotted': {name.replace('-idx', '.idx'): data for name, data in files.items()},
        'zip': dict(reversed(zipped.items())),
    }[kind]
    present = {folder + name: data for name, data in present.items()}
    test = MNIST(write_files('set.zip' if kind == 'zip' else 'set', present), 'test')
    np.testing.assert_array_equal(test.images, images)
    np.testing.assert_array_equal(test.labels, labels)
    assert test.metainfo == {'name': 'mnist', 'classes': tuple('0123456789')}


def test_torchvision_reads_the_same(official, write_files, monkeypatch):
    images, labels, files, _ = official
    monkeypatch.setattr(torchvision.datasets.MNIST, '_check_exists', lambda self: True)
    theirs = torchvision.datasets.MNIST(
        write_files('set', {f'MNIST/raw/{name}': data for name, data in files.items()}), False
    )
    np.testing.assert_array_equal(theirs.data, images[..., 0])
    assert theirs.targets.tolist() == labels.tolist()


def test_at_32_pixels_it_is_enlarged_bilinearly(official, write_files):
    images, _, files, _ = official
    test = MNIST(write_files('set', files), 'test', image_size=32)
    expected = T.resize(torch.from_numpy(images).permute(0, 3, 1, 2), [32, 32])
    difference = test.images.astype(int) - expected.permute(0, 2, 3, 1).numpy()
    assert test.images.shape == (10, 32, 32, 1)
    assert np.abs(difference).max() <= 1


def test_wrong_checksum(official, write_files):
    _, _, files, zipped = official
    other = gzip.compress(files['t10k-labels-idx1-ubyte'], mtime=1)
    root = write_files('set', zipped | {'t10k-labels-idx1-ubyte.gz': other})
    with pytest.raises(UsageError, match='t10k-labels-idx1-ubyte.gz has md5'):
        MNIST(root, 'test')


def test_files_that_do_not_belong_together(official, write_files):
    _, _, files, _ = official
    root = write_files('set', files | {'t10k-labels-idx1-ubyte': idx(np.zeros(9))})
    with pytest.raises(UsageError, match='10 images but 9 labels'):
        MNIST(root, 'test')


def test_missing_labels(official, write_files):
    _, _, files, _ = official
    del files['t10k-labels-idx1-ubyte']
    with pytest.raises(UsageError, match='holds 0 images of mnist test, expected 10'):
        MNIST(write_files('set', files), 'test')


@pytest.mark.parametrize('folder', ['', 'MNIST/raw/'])
@pytest.mark.parametrize('first', ['images-idx3', 'labels-idx1'])
def test_an_interrupted_download_is_completed(folder, first, official, write_files, monkeypatch):
    images, labels, _, zipped = official
    name = f't10k-{first}-ubyte.gz'
    root = write_files('set', {folder + name: zipped[name]})
    fetched = []

    def fetch(file, folder):
        if not (folder / file.filename).exists():
            fetched.append(file.filename)
            (folder / file.filename).write_bytes(zipped[file.filename])

    monkeypatch.setattr(base, 'fetch', fetch)
    for _ in range(2):
        test = MNIST(root, 'test', download=True)
        np.testing.assert_array_equal(test.images, images)
        np.testing.assert_array_equal(test.labels, labels)
    assert fetched[0] == next(other for other in zipped if other != name)


def test_a_set_of_gzipped_and_unpacked_files_is_whole(official, write_files, monkeypatch):
    _, _, files, zipped = official
    mixed = dict([list(zipped.items())[0], list(files.items())[1]])
    monkeypatch.setattr(base, 'fetch', None)  # would fail if it were called
    assert len(MNIST(write_files('set', mixed), 'test', download=True)) == 10


def test_only_the_other_split(official, write_files):
    _, _, files, _ = official
    with pytest.raises(UsageError, match='train-images-idx3-ubyte.gz, .* pass download=True'):
        MNIST(write_files('set', files), 'train')


def test_parse_idx():
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    np.testing.assert_array_equal(parse_idx(idx(array), 3, 'x'), array)
    whole = idx(array)
    for data in (
        b'',
        whole[:10],
        whole[:-1],
        whole + b'x',
        gzip.compress(whole)[:-12],
        idx(array[0]),
        b'\0\0\x0d\3' + whole[4:],  # floats
    ):
        with pytest.raises(UsageError, match='my.idx cannot be read'):
            parse_idx(data, 3, 'my.idx')
