# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CIFAR from official pickles and from folders of images."""

import hashlib
import pickle

import numpy as np
import pytest
import torchvision

from mmdfkd.datasets import CIFAR10, CIFAR100
from mmdfkd.utils import UsageError

TRAIN = [f'data_batch_{k}' for k in range(1, 6)]


def pack_batch(images, labels, key='labels'):
    """As published: rows of 1,024 red, then as many green and blue values."""
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    content = {'batch_label': 'a batch', key: labels, 'data': rows}
    return pickle.dumps(content, protocol=2)


@pytest.fixture
def publish(monkeypatch):
    """Make torchvision give the checksums of these files for those of the publisher."""

    def use(reader, files, archive_md5='0' * 32):
        md5 = {name.split('/')[-1]: hashlib.md5(data).hexdigest() for name, data in files.items()}
        for part in ('train_list', 'test_list'):
            listed = [[name, md5.get(name, old)] for name, old in getattr(reader, part)]
            monkeypatch.setattr(reader, part, listed)
        monkeypatch.setattr(reader, 'tgz_md5', archive_md5)

    return use


@pytest.fixture
def official10(noise, publish, monkeypatch):
    """Images, labels and files of a CIFAR-10 with four images in each of its six batches."""
    images, labels = noise(24), np.arange(24) % 10
    files = {
        f'cifar-10-batches-py/{name}': pack_batch(
            images[4 * k : 4 * k + 4], labels[4 * k : 4 * k + 4].tolist()
        )
        for k, name in enumerate([*TRAIN, 'test_batch'])
    }
    files['cifar-10-batches-py/batches.meta'] = b'not read'
    # The real archive is not in order either.
    order = ('data_batch_4', 'test_batch', 'data_batch_3', 'batches.meta')
    files = {
        f'cifar-10-batches-py/{name}': files[f'cifar-10-batches-py/{name}'] for name in order
    } | files
    publish(torchvision.datasets.CIFAR10, files)
    monkeypatch.setattr(CIFAR10, 'counts', {'train': 20, 'test': 4})
    monkeypatch.setattr(CIFAR10, '_require_every_class', lambda self, numbers: None)
    return images, labels, files


@pytest.mark.parametrize('place', ['set', 'my.tar', 'my.tar.gz', 'my.zip'])
def test_official_batches(place, official10, write_files):
    images, labels, files = official10
    path = write_files(place, files)
    train, test = CIFAR10(path, 'train'), CIFAR10(path, 'test')
    np.testing.assert_array_equal(train.images, images[:20])
    np.testing.assert_array_equal(train.labels, labels[:20])
    np.testing.assert_array_equal(test.images, images[20:])
    np.testing.assert_array_equal(test.labels, labels[20:])
    assert train.metainfo['name'] == 'cifar10'
    assert train.metainfo['classes'][3] == 'cat'


def test_batches_are_those_that_torchvision_reads(official10, write_files, monkeypatch):
    _, _, files = official10
    root = write_files('set', files)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, '_load_meta', lambda self: None)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, '_check_integrity', lambda self: True)
    theirs = torchvision.datasets.CIFAR10(root, train=True)
    ours = CIFAR10(root, 'train')
    np.testing.assert_array_equal(ours.images, theirs.data)
    assert ours.labels.tolist() == theirs.targets


def test_the_folder_itself_and_the_archive_beside_it(official10, write_files):
    images, _, files = official10
    root = write_files('set', files)
    inner = CIFAR10(root / 'cifar-10-batches-py', 'test')
    np.testing.assert_array_equal(inner.images, images[20:])


def test_wrong_checksum(official10, write_files):
    _, _, files = official10
    damaged = (
        files['cifar-10-batches-py/data_batch_2'][:-9]
        + b'x'
        + files['cifar-10-batches-py/data_batch_2'][-8:]
    )
    root = write_files('set', files | {'cifar-10-batches-py/data_batch_2': damaged})
    with pytest.raises(UsageError, match=r'data_batch_2 has md5 [0-9a-f]{32}, but its publisher'):
        CIFAR10(root)
    assert len(CIFAR10(root, 'test')) == 4  # its batch is sound


def test_archive_of_the_published_name_must_be_the_published_one(
    official10, write_files, publish, cache
):
    images, _, files = official10
    path = write_files('set/cifar-10-python.tar.gz', files)
    with pytest.raises(UsageError, match=r'cifar-10-python.tar.gz has md5'):
        CIFAR10(path.parent)
    assert not list(cache.glob('cifar10*'))
    publish(torchvision.datasets.CIFAR10, files, hashlib.md5(path.read_bytes()).hexdigest())
    np.testing.assert_array_equal(CIFAR10(path.parent).images, images[:20])


def test_a_missing_batch(official10, write_files):
    _, _, files = official10
    del files['cifar-10-batches-py/data_batch_5']
    with pytest.raises(UsageError, match='holds 16 images of cifar10 train, expected 20'):
        CIFAR10(write_files('set', files))


def test_cifar100(noise, publish, write_files, monkeypatch):
    images, labels = noise(100), np.random.permutation(100)
    batch = pack_batch(images, labels.tolist(), 'fine_labels')
    files = {'cifar-100-python/train': batch, 'cifar-100-python/test': pack_batch(images, [0])}
    publish(torchvision.datasets.CIFAR100, files)
    monkeypatch.setattr(CIFAR100, 'counts', {'train': 100})
    train = CIFAR100(write_files('set', files))
    np.testing.assert_array_equal(train.images, images)
    np.testing.assert_array_equal(train.labels, labels)
    assert train.metainfo['classes'][0] == 'apple'
    with pytest.raises(UsageError, match="'data' uint8 .*N 'fine_labels'"):
        CIFAR100(write_files('set', files), 'test')


def test_folders_of_images(noise, encode, write_files, monkeypatch):
    monkeypatch.setattr(CIFAR10, 'counts', {'test': 20})
    images = noise(20)
    classes = CIFAR10.classes
    files = {
        f'cifar10/test/{classes[k // 2]}/{k % 2:04d}.png': encode(images[k]) for k in range(20)
    }
    files['cifar10/train/cat/0000.png'] = b'of another split: not even decoded'
    tar = dict(sorted(files.items(), reverse=True))
    for path in (write_files('data/x', files).parent / 'x', write_files('set.tar.xz', tar)):
        test = CIFAR10(path, 'test')
        np.testing.assert_array_equal(test.images, images)
        np.testing.assert_array_equal(test.labels, np.arange(20) // 2)


def test_class_names_are_the_published_ones():
    assert CIFAR10.classes == (
        *('airplane', 'automobile', 'bird', 'cat', 'deer'),
        *('dog', 'frog', 'horse', 'ship', 'truck'),
    )
    # The official list is alphabetical; its first, middle and last entries by number.
    assert list(CIFAR100.classes) == sorted(set(CIFAR100.classes)) and len(CIFAR100.classes) == 100
    assert [CIFAR100.classes[k] for k in (0, 47, 99)] == ['apple', 'maple_tree', 'worm']


@pytest.mark.realdata
@pytest.mark.slow
def test_real_cifar10(real):
    test = CIFAR10(real('cifar10_jpeg.tar.xz'), 'test')
    assert test.images.shape == (10000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # Well-known means of the channels of CIFAR-10: 0.4914, 0.4822, 0.4465 (of its training part).
    means = test.images.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.01)
    # Ships lie in the blue; frogs do not.
    blue = test.images[..., 2].mean(axis=(1, 2)) - test.images[..., 0].mean(axis=(1, 2))
    assert blue[test.labels == 8].mean() > 10 > blue[test.labels == 6].mean()
