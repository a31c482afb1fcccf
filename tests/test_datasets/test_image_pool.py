# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pools on disk: complete or absent, checked on opening, mapped instead of read."""

import errno
import hashlib
import json
import os
import pickle
import time

import numpy as np
import pytest

from mmdfkd.datasets import ImagePool, PackedDataset, write_pool
from mmdfkd.utils import UsageError


@pytest.fixture
def images() -> np.ndarray:
    """100 grey images."""
    return np.random.RandomState(0).randint(0, 256, (100, 6, 5, 1)).astype(np.uint8)


@pytest.fixture
def root(tmp_path, images):
    """A sound pool with an array kept aside."""
    return write_pool(
        tmp_path / 'pool', images, 'street', {'kinds': np.arange(100)}, {'source': 'a camera'}
    )


def test_files_are_plain_numpy_and_json(root, images):
    # Read back with numpy and json alone, not with our reader.
    np.testing.assert_array_equal(np.load(root / 'images.npy'), images)
    meta = json.loads((root / 'meta.json').read_text())
    assert meta['format'] == 'mmdfkd-pool/1'
    assert (meta['name'], meta['count'], meta['shape']) == ('street', 100, [100, 6, 5, 1])
    assert meta['sha256'] == hashlib.sha256(images.tobytes()).hexdigest()
    assert meta['source'] == 'a camera'
    assert sorted(path.name for path in root.parent.iterdir()) == ['pool']


def test_pool_reads_what_was_written(root, images):
    pool = ImagePool(root)
    batch = pool.__getitems__([5, 3])
    assert set(batch) == {'inputs', 'index'}
    np.testing.assert_array_equal(batch['inputs'], images[[5, 3]].transpose(0, 3, 1, 2))
    assert pool.metainfo == {'name': 'street', 'classes': None}
    assert pool.content_hash == PackedDataset(images).content_hash
    pool.verify()
    np.testing.assert_array_equal(pool.extra('kinds'), np.arange(100))
    with pytest.raises(UsageError, match=r"no colours.npy.*\['kinds'\]"):
        pool.extra('colours')


def test_writing_to_a_batch_is_safe_on_a_read_only_map(root, images):
    pool = ImagePool(root)
    assert not pool.images.flags.writeable
    pool.__getitems__([3, 4, 5])['inputs'].zero_()
    pool.verify()


def test_ratio_picks_a_fixed_nested_subset(root, images):
    quarter, half = ImagePool(root, ratio=0.25), ImagePool(root, ratio=0.5)
    assert (len(quarter), len(half)) == (25, 50)
    assert (np.diff(quarter.subset) > 0).all()
    assert set(quarter.subset) < set(half.subset)
    np.testing.assert_array_equal(quarter.images, images[quarter.subset])
    np.testing.assert_array_equal(quarter.extra('kinds'), quarter.subset)
    np.testing.assert_array_equal(quarter.subset, ImagePool(root, ratio=0.25).subset)
    # numpy's legacy stream is frozen, so these numbers hold for ever.
    np.testing.assert_array_equal(
        quarter.subset, np.sort(np.random.RandomState(0).permutation(100)[:25])
    )
    other = ImagePool(root, ratio=0.25, ratio_seed=1)
    assert set(other.subset) != set(quarter.subset)
    hashes = {pool.content_hash for pool in (ImagePool(root), half, quarter, other)}
    assert len(hashes) == 4
    assert quarter.content_hash == PackedDataset(images[quarter.subset]).content_hash
    assert len(ImagePool(root, ratio=1e-6)) == 1 and len(ImagePool(root, ratio=0.128)) == 13


@pytest.mark.parametrize('ratio', [0, -0.1, 1.01, float('nan')])
def test_ratio_out_of_range(root, ratio):
    with pytest.raises(UsageError, match='ratio=.*above 0'):
        ImagePool(root, ratio=ratio)


def test_keep_names_the_images_to_use(root, images):
    np.save(root / 'keep.npy', np.arange(10, 90))
    pool = ImagePool(root, keep='keep.npy')
    assert len(pool) == 80
    np.testing.assert_array_equal(pool.images, images[10:90])
    np.testing.assert_array_equal(pool.extra('kinds'), np.arange(10, 90))
    inputs = pool.__getitems__([3, 0])['inputs']
    np.testing.assert_array_equal(inputs, images[[13, 10]].transpose(0, 3, 1, 2))
    half = ImagePool(root, ratio=0.5, keep=root / 'keep.npy')
    assert len(half) == 40 and set(half.subset) < set(range(10, 90))
    assert half.content_hash == PackedDataset(images[half.subset]).content_hash
    assert pickle.loads(pickle.dumps(half)).content_hash == half.content_hash


@pytest.mark.parametrize(
    ('keep', 'found'),
    [
        (np.array([0, 100]), 'from 0 to 100'),
        (np.array([-1, 5]), 'from -1 to 5'),
        (np.array([5, 5]), '2 positions'),
        (np.array([6, 5]), '2 positions'),
        (np.array([1.0]), 'float64'),
        (np.array([], np.int64), r'shape \(0,\)'),
    ],
)
def test_a_keep_list_must_fit(root, keep, found):
    np.save(root / 'keep.npy', keep)
    with pytest.raises(UsageError, match=rf'keep.npy.*below 100.*{found}.*filter_pool.py'):
        ImagePool(root, keep='keep.npy')


def test_a_keep_list_of_another_pool(root):
    np.save(root / 'keep.npy', np.arange(10, 90))
    of = json.loads((root / 'meta.json').read_text())['sha256']
    for facts in (json.dumps({'pool': of}), json.dumps({'kept': 80}), '[]', 'no JSON'):
        (root / 'keep.json').write_text(facts)
        assert len(ImagePool(root, keep='keep.npy')) == 80
    (root / 'keep.json').write_text(json.dumps({'pool': '0' * 64}))
    with pytest.raises(UsageError, match=r'lists images of another pool: keep.json.*filter_pool'):
        ImagePool(root, keep='keep.npy')


def test_a_keep_list_that_is_missing(root):
    with pytest.raises(UsageError, match=r"kep\.npy' does not exist\. Correct the name"):
        ImagePool(root, keep='kep.npy')


@pytest.mark.parametrize('ratio', [1.0, 0.5])
def test_pickling_carries_no_images(tmp_path, ratio):
    root = write_pool(tmp_path / 'large', np.full((64, 64, 64, 3), 7, np.uint8), 'large')
    pool = ImagePool(root, ratio=ratio)
    pool.to_device('cpu')
    packet = pickle.dumps(pool)
    assert len(packet) < 2000 < pool.images.nbytes
    np.testing.assert_array_equal(pickle.loads(packet).images, pool.images)


def test_verify_finds_one_changed_byte(root):
    with open(root / 'images.npy', 'r+b') as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    for ratio in (1.0, 0.5):
        with pytest.raises(UsageError, match='images.npy has sha256 .*again'):
            ImagePool(root, ratio=ratio).verify()


def _truncate(root):
    os.truncate(root / 'images.npy', os.path.getsize(root / 'images.npy') - 1)


def _append(root):
    with open(root / 'images.npy', 'ab') as file:
        file.write(b'x')


def _edit_meta(**changes):
    def damage(root):
        meta = json.loads((root / 'meta.json').read_text())
        meta.update(changes)
        (root / 'meta.json').write_text(json.dumps(meta))

    return damage


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (_truncate, 'images.npy does not fit'),
        (_append, 'with 1 surplus bytes'),
        (lambda root: os.truncate(root / 'images.npy', 5), 'images.npy does not fit'),
        (lambda root: os.truncate(root / 'images.npy', 0), 'images.npy does not fit'),
        (lambda root: os.remove(root / 'images.npy'), 'images.npy does not fit'),
        (
            lambda root: np.save(root / 'images.npy', np.zeros((100, 6, 5, 1), np.float32)),
            'found float32',
        ),
        (
            lambda root: np.save(
                root / 'images.npy', np.asfortranarray(np.load(root / 'images.npy'))
            ),
            'images.npy does not fit',
        ),
        (_edit_meta(shape=[100, 5, 6, 1]), r'expected uint8 of shape \(100, 5, 6, 1\)'),
        (_edit_meta(count=99), 'must hold name, count'),
        (_edit_meta(shape=[100, 30]), 'must hold name, count'),
        (_edit_meta(sha256=None), 'must hold name, count'),
        (_edit_meta(format='mmdfkd-pool/2'), "'mmdfkd-pool/2', expected 'mmdfkd-pool/1'"),
        (lambda root: (root / 'meta.json').write_text('[1]'), "format 'list'"),
        (lambda root: (root / 'meta.json').write_text('{"form'), 'not valid JSON'),
        (lambda root: os.remove(root / 'meta.json'), 'is no image pool: meta.json'),
    ],
)
def test_damaged_pools_are_refused_by_name(root, damage, message):
    damage(root)
    with pytest.raises(UsageError, match=message) as caught:
        ImagePool(root)
    assert str(root) in str(caught.value)


def test_a_bank_that_a_run_has_still_to_make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs/hidfd').mkdir(parents=True)
    (tmp_path / 'configs/hidfd/my_gan.py').touch()
    with pytest.raises(UsageError, match=r'first: python tools/train\.py configs/hidfd/my_gan\.py'):
        ImagePool('work_dirs/my_gan/bank')
    with pytest.raises(UsageError, match=r'no such folder\. Make one: tools/dataset_converters'):
        ImagePool('work_dirs/other/bank')


def test_never_overwrites(root, images):
    with pytest.raises(UsageError, match='exists already'):
        write_pool(root, images[:1], 'other')
    assert len(ImagePool(root)) == 100


@pytest.mark.parametrize('extra', [{'kinds': np.zeros(3)}, {'images': np.zeros(100)}])
def test_extra_arrays_must_fit(tmp_path, images, extra):
    with pytest.raises(UsageError, match='extra array'):
        write_pool(tmp_path / 'pool', images, 'street', extra)
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing_behind(tmp_path, images, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, 'save', full)
    with pytest.raises(UsageError, match='pool .*No space left on device.*Free some space'):
        write_pool(tmp_path / 'pool', images, 'street')
    assert not list(tmp_path.iterdir())


def test_a_second_writer_meanwhile_wins(tmp_path, images, monkeypatch):
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, 'rename', rename)
        write_pool(target, images, 'second')
        rename(source, target)

    monkeypatch.setattr(os, 'rename', late)
    with pytest.raises(UsageError, match='exists already'):
        write_pool(tmp_path / 'pool', images, 'first')
    assert ImagePool(tmp_path / 'pool').metainfo['name'] == 'second'
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_writers(tmp_path, images):
    old, young, slow = (tmp_path / f'.pool.tmp-{name}' for name in ('old', 'young', 'slow'))
    for folder in (old, young, slow):
        folder.mkdir()
        (folder / 'images.npy').write_bytes(b'half')
    two_hours_ago = time.time() - 7200
    for path in (old / 'images.npy', old, slow):
        os.utime(path, (two_hours_ago, two_hours_ago))
    write_pool(tmp_path / 'pool', images, 'street')
    assert young.exists() and slow.exists()  # they may have living writers
    assert not old.exists()
    assert len(ImagePool(tmp_path / 'pool')) == 100
