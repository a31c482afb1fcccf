# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What all labelled sets share: finding, packing once, opening from the cache, clear errors."""

import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmdfkd.datasets import CIFAR10, LabelledFolder, PackedDataset, TinyImageNet
from mmdfkd.datasets.labelled import base, reader
from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError


@pytest.fixture
def root(noise, encode, write_files):
    """A folder of 300 images in three classes: more than one thread reads at a time."""
    images = noise(300, 8)
    names = [f'{"abc"[k // 100]}/{k:03d}.png' for k in range(300)]
    return write_files('set', {name: encode(x) for name, x in zip(names, images, strict=True)})


def test_it_is_a_packed_dataset(root, noise):
    dataset = DATASETS.build(dict(type='LabelledFolder', data_root=str(root)))
    images, labels = noise(300, 8), np.arange(300) // 100
    assert isinstance(dataset, PackedDataset)
    np.testing.assert_array_equal(dataset.images, images)
    batch = dataset.__getitems__([299, 0])
    np.testing.assert_array_equal(batch['inputs'], images[[299, 0]].transpose(0, 3, 1, 2))
    assert batch['label'].tolist() == [2, 0]
    assert dataset.content_hash == PackedDataset(images, labels).content_hash


def test_archive_and_folder_hold_the_same(root, write_files):
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*.png')}
    shuffled = sorted(files.items(), key=lambda item: hash(item[1]))
    archive = LabelledFolder(write_files('set.tar', dict(shuffled)))
    folder = LabelledFolder(root)
    assert archive.content_hash == folder.content_hash
    np.testing.assert_array_equal(archive.labels, folder.labels)


def test_second_opening_reads_nothing(root, cache, monkeypatch):
    first = LabelledFolder(root)
    monkeypatch.setattr(base, 'read_images', None)  # would fail if it were called
    second = LabelledFolder(root)
    np.testing.assert_array_equal(second.images, first.images)
    assert not second.images.flags.owndata and not second.images.flags.writeable
    (folder,) = cache.iterdir()
    meta = json.loads((folder / 'meta.json').read_text())
    assert meta['classes'] == ['a', 'b', 'c'] and meta['source'] == str(root)


def test_changes_are_noticed(root, encode, noise):
    assert len(LabelledFolder(root)) == 300
    (root / 'a' / 'new.png').write_bytes(encode(noise(1, 8)[0]))
    assert len(LabelledFolder(root)) == 301
    for path in (root / 'c').iterdir():
        path.unlink()
    (root / 'c').rmdir()
    assert LabelledFolder(root).metainfo['classes'] == ('a', 'b')


def test_size_and_colour_have_caches_of_their_own(root, cache):
    shapes = [
        LabelledFolder(root, image_size=size, grey=grey).images.shape[1:]
        for size, grey in ((None, False), (None, True), (5, False), (5, True))
    ]
    assert shapes == [(8, 8, 3), (8, 8, 1), (5, 5, 3), (5, 5, 1)]
    assert len(list(cache.iterdir())) == 4


def test_another_reader_reads_anew(root, cache, monkeypatch):
    LabelledFolder(root, name='set')
    monkeypatch.setattr(base, '_READER_VERSION', base._READER_VERSION + 1)
    LabelledFolder(root, name='set')
    type('Other', (LabelledFolder,), {})(root, name='set')
    assert len(list(cache.iterdir())) == 3


def test_folders_that_look_alike_have_caches_of_their_own(root, tmp_path, noise, encode):
    twin = shutil.copytree(root, tmp_path / 'elsewhere' / 'set')
    (twin / 'a' / '000.png').write_bytes(encode(noise(1, 8)[0]))
    for folder in (root, twin):
        for path in (folder, *folder.rglob('*')):
            os.utime(path, (0, 0))
    first, second = LabelledFolder(root), LabelledFolder(twin)
    np.testing.assert_array_equal(second.images[0], noise(1, 8)[0])
    assert (first.images[0] != second.images[0]).any()


def test_damaged_cache_is_made_anew(root, cache):
    LabelledFolder(root)
    (folder,) = cache.iterdir()
    (folder / 'images.npy').write_bytes(b'half')
    assert LabelledFolder(root).images.shape == (300, 8, 8, 3)


def test_pickled_copies_map_the_files_again(root):
    dataset = LabelledFolder(root)
    dataset.to_device('cpu')
    data = pickle.dumps(dataset)
    assert len(data) < 10000  # the images alone are 57,600 bytes
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.images, dataset.images)
    np.testing.assert_array_equal(copy.labels, dataset.labels)
    assert copy.content_hash == dataset.content_hash


def test_loader_with_workers(root):
    loader = DataLoader(LabelledFolder(root), batch_size=100, num_workers=1, collate_fn=_identity)
    assert [batch['label'].tolist() for batch in loader] == [[k] * 100 for k in range(3)]


def _identity(batch):
    return batch


def test_of_several_readers_one_packs(root, monkeypatch):
    # The lock is one of files, thus the same between threads as between processes.
    packed = []
    original = base.read_images
    monkeypatch.setattr(base, 'read_images', lambda source: packed.append(1) or original(source))
    with ThreadPoolExecutor(3) as threads:
        counts = list(threads.map(lambda path: len(LabelledFolder(path)), [root] * 3))
    assert counts == [300] * 3
    assert len(packed) == 1


def test_killed_packing_leaves_nothing(root, cache, monkeypatch):
    original = reader.decode_image

    def interrupt(data, name, *options):
        if name.endswith('250.png'):
            raise KeyboardInterrupt
        return original(data, name, *options)

    monkeypatch.setattr(reader, 'decode_image', interrupt)
    with pytest.raises(KeyboardInterrupt):
        LabelledFolder(root)
    assert list(cache.iterdir()) == []


def test_first_error_ends_the_reading(root, monkeypatch):
    # The image after which nothing more is worth decoding comes first.
    (root / 'a' / '000.png').write_bytes(b'')
    read = []
    monkeypatch.setattr(reader, '_CHUNK', 4)
    monkeypatch.setattr(reader.os, 'cpu_count', lambda: 1)
    label = LabelledFolder.label
    monkeypatch.setattr(LabelledFolder, 'label', lambda *args: read.append(1) or label(*args))
    with pytest.raises(UsageError, match='a/000.png.*the file is empty'):
        LabelledFolder(root)
    assert len(read) < 100


def test_missing_set_says_what_and_where_from(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"CIFAR10: data_root='.*nowhere' does not exist; .*cifar-10-batches-py, "
        r'cifar-10-python.tar.gz.* from https://www.cs.toronto.edu/.*, or pass download=True',
    ):
        CIFAR10(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match='holds none of these; .* tiny-imagenet-200.zip'):
        TinyImageNet(tmp_path)


def test_unknown_arguments(root):
    with pytest.raises(UsageError, match="CIFAR10.*split='val' is not known.*'train', 'test'"):
        CIFAR10(root, 'val')
    with pytest.raises(UsageError, match='image_size=0 of LabelledFolder must be 1'):
        LabelledFolder(root, image_size=0)


def test_foreign_class_and_missing_class(noise, encode, write_files, monkeypatch):
    monkeypatch.setattr(CIFAR10, 'counts', {})
    image = encode(noise(1)[0])
    files = {f'train/{name}/1.png': image for name in CIFAR10.classes}
    root = write_files('set', files | {'train/zebra/1.png': image})
    with pytest.raises(UsageError, match="train/zebra/1.png is of class 'zebra'.*airplane, auto"):
        CIFAR10(root)
    del files['train/cat/1.png'], files['train/dog/1.png']
    with pytest.raises(UsageError, match=r"no image of cat, dog in split 'train' \(2 of 10"):
        CIFAR10(write_files('other', files))


def test_cache_that_cannot_be_written(root, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'file'))
    with pytest.raises(UsageError, match='cache folder .*file/datasets cannot be written.*MMDFKD'):
        LabelledFolder(root)


def test_full_disk(root, cache, monkeypatch):
    class FullDisk:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def write(self, data):
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(base.tempfile, 'TemporaryFile', lambda **options: FullDisk())
    with pytest.raises(UsageError, match='into the cache .* failed: .*No space.* Free some space'):
        LabelledFolder(root)
    assert list(cache.iterdir()) == []


def test_without_locks_the_first_to_finish_wins(root, monkeypatch):
    # Both find no cache and pack; the second finds the first one's pool in its place.
    write = base.write_pool

    def overtaken(*arguments):
        write(*arguments)
        return write(*arguments)

    monkeypatch.setattr(base, 'write_pool', overtaken)
    assert len(LabelledFolder(root)) == 300
