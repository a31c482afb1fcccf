# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A bank grows all or nothing, is a pool at any time, and belongs to one teacher."""

import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmdfkd.datasets import (
    ImageBank,
    ImagePool,
    bank_files,
    residency,
    whole_batch_collate,
    write_pool,
)
from mmdfkd.utils import UsageError

FACTS = dict(teacher='0123456789abcdef', num_classes=7, mean=[120.0] * 3, std=[60.0] * 3)
SHAPE = (3, 4, 5)


def made(number, count=10):
    """Images and targets of a round."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 7, (count,), generator=generator)


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'bank'


@pytest.fixture
def bank(root):
    """An open bank of two rounds."""
    bank = ImageBank(root, SHAPE)
    bank.open(FACTS, 'toy bank')
    for number in range(2):
        bank.append(*made(number))
    return bank


def content(root):
    """Bytes of the files, by name."""
    return {path.name: path.read_bytes() for path in root.iterdir()}


def expected(*rounds):
    return torch.cat([made(number)[0] for number in rounds])


# What is in it --------------------------------------------------------------------------------


def test_it_begins_empty(root):
    bank = ImageBank(root, SHAPE)
    assert len(bank) == 0 and bank.rounds == 0 and not root.exists()
    assert len(ImageBank()) == 0
    bank.open(FACTS)
    assert len(bank) == 0 and np.load(root / 'images.npy').shape == (0, 4, 5, 3)
    with pytest.raises(UsageError, match='holds no image yet.*tools/synthesize.py'):
        ImagePool(root)


def test_an_empty_folder_is_as_good_as_none(root):
    root.mkdir()
    bank = ImageBank(root, SHAPE)
    assert bank.set_aside() is None
    bank.open(FACTS)
    bank.append(*made(0))
    assert torch.equal(bank.__getitems__(range(10))['inputs'], expected(0))


def test_a_folder_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    ImageBank('~/bank', SHAPE).open(FACTS)
    assert (tmp_path / 'bank' / 'meta.json').is_file()


def test_leftovers_of_killed_makers(root):
    scratch = root.parent / '.bank.tmp-old'
    scratch.mkdir()
    (scratch / 'images.npy').write_bytes(b'half')
    for path in (scratch / 'images.npy', scratch):
        os.utime(path, (0, 0))
    ImageBank(root, SHAPE).open(FACTS)
    assert not scratch.exists()
    (root / '.meta-half.json').write_text('{"co')
    ImageBank(root, SHAPE).open(FACTS)
    assert sorted(content(root)) == ['images.npy', 'labels.npy', 'meta.json']


def test_files_are_plain_numpy_and_json(bank, root):
    """Read back with numpy and json alone."""
    images = np.load(root / 'images.npy')
    np.testing.assert_array_equal(images, expected(0, 1).permute(0, 2, 3, 1))
    labels = np.load(root / 'labels.npy')
    assert labels.dtype == np.int64
    assert labels.tolist() == torch.cat([made(0)[1], made(1)[1]]).tolist()
    meta = json.loads((root / 'meta.json').read_text())
    assert (meta['name'], meta['count'], meta['shape']) == ('toy bank', 20, [20, 4, 5, 3])
    assert meta['sha256'] == hashlib.sha256(images.tobytes()).hexdigest()
    assert meta['bank'] == dict(rounds=2, **FACTS)
    assert sorted(content(root)) == ['images.npy', 'labels.npy', 'meta.json']


def test_batches_are_those_of_a_pool(bank, root):
    batch = bank.__getitems__([13, 2])
    assert set(batch) == {'inputs', 'index'}
    assert torch.equal(batch['inputs'], expected(0, 1)[[13, 2]])
    pool = ImagePool(root)
    pool.verify()
    assert torch.equal(pool.__getitems__([13, 2])['inputs'], batch['inputs'])
    assert pool.content_hash == bank.content_hash and pool.metainfo['name'] == 'toy bank'
    for dataset in (pool, bank):
        assert dataset.extra('labels').tolist() == torch.cat([made(0)[1], made(1)[1]]).tolist()
    assert bank.__getitems__([])['inputs'].shape == (0, *SHAPE)
    part = ImagePool(root, ratio=0.5)
    assert len(part) == len(part.extra('labels')) == 10


def test_the_hash_follows(bank):
    hashes = {bank.content_hash}
    bank.append(*made(2))
    hashes.add(bank.content_hash)
    bank.truncate(20, 2, hashlib.sha256(bank.images[:20].tobytes()).hexdigest())
    assert len(hashes) == 2 and bank.content_hash in hashes


def test_a_keep_list_holds_while_the_bank_grows(bank, root):
    np.save(root / 'keep.npy', np.array([3, 11]))
    (root / 'keep.json').write_text(json.dumps({'pool': bank.meta['sha256']}))
    bank.append(*made(2))
    pool = ImagePool(root, keep='keep.npy')
    assert torch.equal(pool.__getitems__([0, 1])['inputs'], expected(0, 1)[[3, 11]])


def test_rounds_of_any_size(bank):
    bank.append(*made(2, count=3))
    assert len(bank) == 23 and bank.rounds == 3


def test_an_open_pool_keeps_what_it_saw(bank, root):
    pool = ImagePool(root)
    bank.append(*made(2))
    assert len(pool) == len(pool.extra('labels')) == 20
    assert torch.equal(pool.__getitems__(range(20))['inputs'], expected(0, 1))


# Going on -------------------------------------------------------------------------------------


def test_another_process_goes_on(bank, root, tmp_path):
    bank.append(*made(2))
    again = ImageBank(tmp_path / 'again', SHAPE)
    again.open(FACTS, 'toy bank')
    for number in range(3):
        again = ImageBank(tmp_path / 'again', SHAPE)
        again.open(FACTS)
        assert len(again) == 10 * number and again.rounds == number
        again.append(*made(number))
    assert content(root) == content(tmp_path / 'again')


def test_truncation_forgets_what_came_later(bank, root):
    before = content(root)
    sha256 = bank.meta['sha256']
    bank.truncate(20, 2, sha256)  # nothing came later
    assert content(root) == before
    bank.append(*made(2))
    bank.truncate(20, 2, sha256)
    assert content(root) == before and len(bank) == 20
    bank.append(*made(2))
    assert torch.equal(bank.__getitems__(range(30))['inputs'], expected(0, 1, 2))
    bank.truncate(0, 0, hashlib.sha256().hexdigest())
    assert len(bank) == 0


def test_a_bank_of_another_run_in_its_place(bank, root):
    before = content(root)
    with pytest.raises(UsageError, match=r'not those that the checkpoint names.*start anew'):
        bank.truncate(10, 1, 'f' * 64)
    assert content(root) == before


def test_a_bank_that_is_too_small(bank):
    with pytest.raises(UsageError, match=r'a bank of 30 images, .* holds 20\. Resume in the work'):
        bank.truncate(30, 3, 'f' * 64)


def test_set_aside(bank, root):
    before = content(root)
    assert bank.set_aside() == root.with_name('bank_1') and not root.exists()
    assert content(root.with_name('bank_1')) == before
    assert ImageBank(root, SHAPE).set_aside() is None
    new = ImageBank(root, SHAPE)
    new.open(FACTS)
    assert len(new) == 0 and new.set_aside() == root.with_name('bank_2')


def test_a_folder_that_cannot_be_renamed_stays(bank, root, monkeypatch):
    def busy(*paths):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    before = content(root)
    with monkeypatch.context() as patch, pytest.raises(UsageError, match='renamed to bank_1: '):
        patch.setattr(os, 'rename', busy)
        bank.set_aside()
    assert content(root) == before
    with monkeypatch.context() as patch, pytest.raises(UsageError, match='cannot be made: '):
        patch.setattr(os, 'rename', busy)
        ImageBank(root.with_name('other'), SHAPE).open(FACTS)
    assert [path.name for path in root.parent.iterdir()] == ['bank']  # nothing half made


def test_others_see_what_is_new_after_a_refresh(bank, root):
    reader = ImageBank(root, SHAPE)
    assert len(reader) == 0
    reader.refresh()
    assert len(reader) == 20 and reader.rounds == 2
    bank.append(*made(2))
    assert len(reader) == 20
    reader.refresh()
    assert torch.equal(reader.__getitems__(range(30))['inputs'], expected(0, 1, 2))


def test_worker_processes_that_are_older_than_the_images(bank):
    """Persistent workers hold a copy from before the last round."""
    positions = [[0, 5], [25, 12]]
    loader = DataLoader(
        bank,
        batch_sampler=positions,
        collate_fn=whole_batch_collate,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context='fork',
    )
    positions.pop()
    assert torch.equal(next(iter(loader))['inputs'], expected(0)[[0, 5]])
    bank.append(*made(2))
    positions.append([25, 12])
    assert torch.equal(list(loader)[1]['inputs'], expected(0, 1, 2)[[25, 12]])


def test_pickling_maps_the_files_anew(bank):
    copy = pickle.loads(pickle.dumps(bank))
    assert len(pickle.dumps(bank)) < 3000 and copy.files is None
    assert torch.equal(copy.__getitems__([3])['inputs'], bank.__getitems__([3])['inputs'])
    bank.to_device('cpu')
    copy = pickle.loads(pickle.dumps(bank))
    assert copy.device_images is None and copy._room is None


# Killed, or without room ----------------------------------------------------------------------

WRITE = """
import sys, torch
from mmdfkd.datasets import ImageBank
bank = ImageBank(sys.argv[1], (3, 4, 5))
bank.open(dict(teacher='0123456789abcdef', num_classes=7, mean=[120.0] * 3, std=[60.0] * 3), 'toy')
print('open', flush=True)
while True:
    generator = torch.Generator().manual_seed(bank.rounds)
    images = torch.randint(0, 256, (500, 3, 4, 5), dtype=torch.uint8, generator=generator)
    bank.append(images, torch.randint(0, 7, (500,), generator=generator))
"""


def test_killed_at_any_moment(root):
    """Three times kill -9 in the middle of writing; then all rounds are as if nothing had been."""
    for delay in (0.1, 0.23, 0.37):
        writer = subprocess.Popen(
            [sys.executable, '-c', WRITE, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == 'open\n'
        try:
            writer.wait(delay)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        ImagePool(root).verify()  # as the kill left it
    bank = ImageBank(root, SHAPE)
    bank.open(FACTS)
    assert bank.rounds > 3 and len(bank) == 500 * bank.rounds
    for number in range(bank.rounds):
        rows = range(500 * number, 500 * (number + 1))
        assert torch.equal(bank.__getitems__(rows)['inputs'], made(number, 500)[0])
    assert sorted(content(root)) == ['images.npy', 'labels.npy', 'meta.json']


@pytest.mark.parametrize('moment', ['_write_headers', '_commit'])
def test_what_is_not_committed_is_cut_on_opening(bank, root, monkeypatch, moment):
    before = content(root)

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bank_files.BankFiles, moment, die)
        bank.append(*made(2))
    assert content(root) != before
    pool = ImagePool(root)  # a reader does not mind the surplus
    pool.verify()
    assert len(pool) == len(pool.extra('labels')) == 20
    again = ImageBank(root, SHAPE)
    again.open(FACTS)
    assert content(root) == before
    again.append(*made(2))
    assert torch.equal(again.__getitems__(range(30))['inputs'], expected(0, 1, 2))


@pytest.mark.parametrize('call', range(5))
def test_a_full_disk(bank, root, monkeypatch, call):
    """Whichever of the five files' flushes fails, nothing is lost and nothing half done."""
    before, calls = content(root), []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', fsync)
        with pytest.raises(UsageError) as error:
            bank.append(*made(2))
    message = str(error.value)
    assert 'No space left on device' in message and 'Its 20 images are safe' in message
    assert str(root) in message and '--resume' in message
    assert content(root) == before and len(bank) == 20
    bank.append(*made(2))
    assert torch.equal(bank.__getitems__(range(30))['inputs'], expected(0, 1, 2))
    ImagePool(root).verify()


def test_a_folder_that_cannot_be_flushed(bank, root, monkeypatch):
    """Some file systems refuse; by then the round is committed."""

    def refuse(folder):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(bank_files, 'sync_folder', refuse)
    bank.append(*made(2))
    assert torch.equal(ImagePool(root).__getitems__(range(30))['inputs'], expected(0, 1, 2))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match='cannot be made: File exists.*choose a folder'):
        ImageBank(tmp_path / 'file' / 'bank', SHAPE).open(FACTS)


# What does not belong together ------------------------------------------------------------------


@pytest.mark.parametrize(
    'other',
    [
        dict(teacher='fedcba9876543210'),
        dict(mean=[0.0] * 3),
        dict(std=[1.0] * 3),
        dict(num_classes=8),
    ],
)
def test_a_bank_of_another_teacher(bank, root, other):
    (key,) = other
    with pytest.raises(UsageError, match=f'was made with {key}=.*this run has {key}=.*Choose'):
        ImageBank(root, SHAPE).open({**FACTS, **other})


@pytest.mark.parametrize(
    ('before', 'now', 'words'),
    [
        (dict(views=dict(crop=4)), dict(views=dict(crop=2)), 'settings.views.crop=4, .*crop=2;'),
        (dict(lr=1, clamp=True), dict(lr=1), 'settings.clamp=True, .*settings.clamp=None'),
        (dict(lr=1), dict(lr=1, clamp=True), 'settings.clamp=None, .*settings.clamp=True'),
        (dict(a=[0] * 99), dict(a=1), r'settings\.a=\[0, .{53}\.\.\., this'),
    ],
)
def test_settings_that_differ_are_named_to_the_point(root, before, now, words):
    ImageBank(root, SHAPE).open(dict(FACTS, settings=before))
    with pytest.raises(UsageError, match=words):
        ImageBank(root, SHAPE).open(dict(FACTS, settings=now), identity=('settings',))


def test_images_of_another_shape(bank, root):
    with pytest.raises(UsageError, match=r'images of shape \(3, 4, 5\).*takes \(1, 4, 5\)'):
        ImageBank(root, (1, 4, 5)).open(FACTS)
    with pytest.raises(UsageError, match=r'takes uint8 images of shape \(3, 4, 5\), found'):
        bank.append(torch.zeros(2, 3, 5, 4, dtype=torch.uint8), torch.zeros(2))
    with pytest.raises(UsageError, match=r'found torch\.float32'):
        bank.append(torch.zeros(2, *SHAPE), torch.zeros(2))


def test_a_folder_that_is_no_bank(root):
    root.mkdir()
    (root / 'thesis.txt').touch()
    with pytest.raises(UsageError, match='is no image pool'):
        ImageBank(root, SHAPE).open(FACTS)
    assert (root / 'thesis.txt').exists()


def test_a_finished_pool_does_not_grow(root):
    write_pool(root, np.zeros((2, 4, 5, 3), np.uint8), 'street')
    with pytest.raises(UsageError, match=r"finished image pool.*dict\(type='ImagePool'"):
        ImageBank(root, SHAPE).open(FACTS)


def test_damage(bank, root):
    os.truncate(root / 'images.npy', 128 + 19 * 60)
    with pytest.raises(UsageError, match=r'shorter than the 20 images that meta\.json'):
        ImageBank(root, SHAPE).open(FACTS)


def test_a_lost_file(bank, root):
    (root / 'labels.npy').unlink()
    with pytest.raises(UsageError, match=r'labels\.npy is shorter than the 20 images'):
        ImageBank(root, SHAPE).open(FACTS)


def test_changed_pixels(bank, root):
    with (root / 'images.npy').open('r+b') as file:
        file.seek(200)
        byte = file.read(1)[0]
        file.seek(200)
        file.write(bytes([255 - byte]))
    with pytest.raises(UsageError, match=r'not those that meta\.json names'):
        ImageBank(root, SHAPE).open(FACTS)


def test_two_writers(bank, root):
    other = ImageBank(root, SHAPE)
    other.open(FACTS)
    other.append(*made(2))
    with pytest.raises(UsageError, match='changed by another process.*own --work-dir'):
        bank.append(*made(3))
    assert torch.equal(other.__getitems__(range(30))['inputs'], expected(0, 1, 2))
    ImagePool(root).verify()


def test_nobody_said_where():
    with pytest.raises(UsageError, match=r'does not know its folder.*dataset\.root'):
        ImageBank().open(FACTS)


# On the device ----------------------------------------------------------------------------------


def test_it_grows_on_the_device(bank, root, monkeypatch):
    bank.resident = True
    assert residency.make_resident(bank, 'cpu')
    addresses = []
    for number in range(2, 8):
        bank.append(*made(number))
        addresses.append(bank.device_images.data_ptr())
        bank.images, images = np.zeros_like(bank.images), bank.images  # not looked at
        found = bank.__getitems__(range(10 * (number + 1)))['inputs']
        assert torch.equal(found, expected(*range(number + 1)))
        bank.images = images
    assert len(set(addresses)) == 2  # room for 60, then for 140
    sha256 = hashlib.sha256(bank.images[:20].tobytes()).hexdigest()
    bank.truncate(20, 2, sha256)
    bank.append(*made(5))
    assert torch.equal(bank.__getitems__(range(30))['inputs'], expected(0, 1, 5))


def test_a_large_round_grows_on_the_device(root):
    bank = ImageBank(root, (1, 2, 2), resident=True)
    assert residency.make_resident(bank, 'cpu')
    bank.open(FACTS)
    images = torch.randint(0, 256, (9000, 1, 2, 2), dtype=torch.uint8)
    bank.append(images, torch.zeros(9000))
    assert torch.equal(bank.device_images.permute(0, 3, 1, 2), images)


def test_an_empty_bank_may_live_on_the_device(root):
    bank = ImageBank(root, SHAPE, resident=True)
    assert residency.make_resident(bank, 'cpu') and len(bank.device_images) == 0
    bank.open(FACTS)
    bank.append(*made(0))
    assert torch.equal(bank.device_images.permute(0, 3, 1, 2), expected(0))


def test_it_moves_out_where_it_gets_too_large(bank, monkeypatch):
    bank.to_device('cpu')
    monkeypatch.setattr(residency, 'free_memory', lambda device: 4 * 30 * 60 - 1)
    bank.append(*made(2))  # twice 30 images of 60 bytes exceed half of that
    assert bank.device_images is None
    assert torch.equal(bank.__getitems__(range(30))['inputs'], expected(0, 1, 2))
    bank.append(*made(3))
    assert len(bank) == 40


def test_it_cannot_stay_where_it_has_to(bank, monkeypatch):
    bank.resident = True
    bank.to_device('cpu')
    monkeypatch.setattr(residency, 'free_memory', lambda device: 100)
    with pytest.raises(UsageError, match='resident=True does not fit'):
        bank.append(*made(2))
