# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mmdfkd.datasets import ImagePool, write_pool
from mmdfkd.datasets.image_pool import is_pool
from mmdfkd.datasets.packing import Recipe, Source, decode_image, pack, packer, part, read_names
from mmdfkd.utils import UsageError

from .conftest import encode, write_folder, write_tar, write_zip

RECIPE = Recipe(8)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Of 4 images, so that 24 make several."""
    monkeypatch.setattr(packer, '_BLOCK_IMAGES', 4)


def contents(root):
    return {path.name: path.read_bytes() for path in root.iterdir()}


def in_order(pictures):
    return sorted(pictures, key=lambda name: name.split('/'))


def test_a_pool_is_packed(tmp_path, folder, pictures):
    report = pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)
    assert (report.images, report.skipped, report.resumed) == (24, 0, 0)
    names = in_order(pictures)
    expected = np.stack([decode_image(pictures[name], RECIPE) for name in names])
    np.testing.assert_array_equal(np.load(tmp_path / 'pool' / 'images.npy'), expected)
    assert read_names(tmp_path / 'pool') == names
    meta = json.loads((tmp_path / 'pool' / 'meta.json').read_text())
    facts = dict(format='mmdfkd-pool/1', name='pool', count=24, shape=[24, 8, 8, 3], skipped=0)
    facts.update(filter='box', mode='squash', colour='rgb', sources=[str(folder)])
    assert facts.items() <= meta.items()
    assert meta['sha256'] == hashlib.sha256(expected.tobytes()).hexdigest()
    ImagePool(tmp_path / 'pool').verify()
    assert sorted(contents(tmp_path / 'pool')) == [
        'images.npy', 'meta.json', 'names.txt', 'skipped.txt'
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ['pictures', 'pool']


def test_pools_and_files_are_merged(tmp_path):
    """KD³'s pool for MNIST: MNIST-M, itself a pool, and SVHN, both to grey."""
    random = np.random.default_rng(0)
    digits = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    numbers = random.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    pool = write_pool(tmp_path / 'mnist-m', digits, 'mnist-m')
    svhn = tmp_path / 'train_32x32.mat'
    savemat(svhn, dict(X=numbers.transpose(1, 2, 3, 0), y=np.full((5, 1), 10, np.uint8)))
    recipe = Recipe(32, grey=True)
    for workers in (0, 2):
        root = tmp_path / f'merged-{workers}'
        report = pack([Source(pool), Source(svhn)], root, recipe, workers=workers)
        assert report.images == 11
        merged = ImagePool(root)
        luma = [Image.fromarray(image).convert('L') for image in (*digits, *numbers)]
        np.testing.assert_array_equal(merged.images[..., 0], np.stack(luma))
    names = read_names(root)
    assert (names[0], names[6]) == (f'{pool}/0000000', f'{svhn}/train_32x32.mat/0000000')


@pytest.mark.parametrize('kind', ['tar', 'tar.gz', 'zip'])
def test_the_same_images_make_the_same_pool(tmp_path, folder, pictures, kind):
    pack([Source(folder)], tmp_path / 'a', RECIPE, 'p', workers=0, labels=True)
    path = tmp_path / f'archive.{kind}'  # in another order than the folder
    if kind == 'zip':
        write_zip(path, pictures)
    else:
        write_tar(path, pictures, f'w:{kind[4:]}')
    pack([Source(path)], tmp_path / 'b', RECIPE, 'p', workers=0, labels=True)
    first, second = contents(tmp_path / 'a'), contents(tmp_path / 'b')
    assert first.pop('meta.json') != second.pop('meta.json')  # they name their sources
    assert first == second


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(tmp_path, pictures, workers):
    source = Source(write_tar(tmp_path / 'a.tar', pictures))
    pack([source], tmp_path / 'alone', RECIPE, 'p', workers=0)
    pack([source], tmp_path / 'many', RECIPE, 'p', workers=workers)
    assert contents(tmp_path / 'alone') == contents(tmp_path / 'many')


def test_labels(tmp_path, folder):
    pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0, labels=True)
    pool = ImagePool(tmp_path / 'pool')
    np.testing.assert_array_equal(pool.extra('labels'), np.repeat([0, 1, 2], 8))
    assert pool.meta['classes'] == ['ant', 'bee', 'bee-eater']  # less the common 'images'
    assert set(pool.__getitems__([0])) == {'inputs', 'index'}


def test_blocks_in_order_of_an_archive_that_is_not(tmp_path, pictures):
    data = list(pictures.values())[:8]
    names = [f'{folder}/{k}.png' for folder in 'ba' for k in range(4)]
    source = Source(write_tar(tmp_path / 'a.tar', dict(zip(names, data, strict=True))))
    pack([source], tmp_path / 'pool', RECIPE, workers=0)
    assert read_names(tmp_path / 'pool') == sorted(names)
    expected = [decode_image(image, RECIPE) for image in data[4:] + data[:4]]
    np.testing.assert_array_equal(ImagePool(tmp_path / 'pool').images, expected)


def test_classes_are_in_order_whatever_the_archive_begins_with(tmp_path, pictures):
    data = next(iter(pictures.values()))
    source = Source(write_tar(tmp_path / 'a.tar', {f'{name}/0.png': data for name in 'cab'}))
    pack([source], tmp_path / 'pool', RECIPE, workers=0, labels=True)
    pool = ImagePool(tmp_path / 'pool')
    assert pool.meta['classes'] == ['a', 'b', 'c'] and pool.extra('labels').tolist() == [0, 1, 2]


def test_labels_of_rows_stay_as_they_are(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (9, 3 * 64), dtype=np.uint8)
    labels = [1000, 1, 2, 2, 3, 3, 4, 4, 5]
    np.savez(tmp_path / 'train_data_batch_1.npz', data=rows, labels=labels)
    pack([Source(tmp_path / 'train_data_batch_1.npz')], tmp_path / 'p', RECIPE, labels=True)
    pool = ImagePool(tmp_path / 'p')
    np.testing.assert_array_equal(pool.extra('labels'), labels)
    np.testing.assert_array_equal(pool.images.transpose(0, 3, 1, 2).reshape(9, -1), rows)


def test_several_sources(tmp_path, pictures):
    names = in_order(pictures)
    later = write_folder(tmp_path / 'a', {name: pictures[name] for name in names[:5]})
    first = write_tar(tmp_path / 'b.tar', {name: pictures[name] for name in names[5:]})
    report = pack([Source(first), Source(later)], tmp_path / 'pool', RECIPE, workers=0)
    assert report.images == 24
    expected = [f'{first}/{name}' for name in names[5:]] + [f'{later}/{n}' for n in names[:5]]
    assert read_names(tmp_path / 'pool') == expected
    for limit in (7, 21):  # of all sources together, as they come
        pack([Source(later), Source(first)], tmp_path / f'{limit}', RECIPE, workers=0, limit=limit)
        assert len(read_names(tmp_path / f'{limit}')) == limit


def test_limit_and_name(tmp_path, folder, pictures):
    pack([Source(folder)], tmp_path / 'pool', RECIPE, 'few', workers=0, limit=6)
    assert read_names(tmp_path / 'pool') == in_order(pictures)[:6]
    assert ImagePool(tmp_path / 'pool').metainfo['name'] == 'few'


@pytest.mark.parametrize('place', ['.', 'link'])
def test_an_empty_folder_becomes_the_pool(tmp_path, folder, monkeypatch, place):
    empty = tmp_path / 'empty'
    empty.mkdir()
    if place == 'link':
        (tmp_path / 'link').symlink_to(empty)
        place = tmp_path / 'link'
    monkeypatch.chdir(empty)
    report = pack([Source(folder)], place, RECIPE, workers=0)
    assert report.root == empty and len(ImagePool(empty)) == 24
    assert ImagePool(empty).metainfo['name'] == 'empty'
    assert not list(tmp_path.glob('*.part'))


@pytest.mark.parametrize('bad', [dict(limit=0), dict(workers=-1)])
def test_numbers_that_mean_nothing(tmp_path, folder, bad):
    with pytest.raises(UsageError, match='workers=.* limit='):
        pack([Source(folder)], tmp_path / 'pool', RECIPE, **bad)


# --- unreadable images ----------------------------------------------------------------------


def test_ten_thousand_corrupt_files(tmp_path, pictures):
    bad = {f'bad/{k}.jpg': b'\xff\xd8 broken' for k in range(10_000)}
    few = {name: pictures[name] for name in list(pictures)[:3]}
    source = Source(write_tar(tmp_path / 'a.tar', {**bad, **few, 'empty.png': b''}))
    packer._BLOCK_IMAGES = 256
    report = pack([source], tmp_path / 'pool', RECIPE, workers=0)
    assert (report.images, report.skipped) == (3, 10_001)
    assert report.reasons['the file is empty'] == 1 and len(report.reasons) == 2
    assert sorted(read_names(tmp_path / 'pool')) == sorted(few)
    lines = (tmp_path / 'pool' / 'skipped.txt').read_text().splitlines()
    assert len(lines) == 10_001 and 'empty.png\tthe file is empty' in lines
    assert ImagePool(tmp_path / 'pool').meta['skipped'] == 10_001


def test_nothing_readable(tmp_path):
    folder = write_folder(tmp_path / 'set', {'a.png': b'', 'b.txt': b'', 'c.txt': b''})
    with pytest.raises(UsageError, match=r'no readable image .*1 unreadable .*2 \.txt files'):
        pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_a_folder_of_pools(tmp_path):
    write_pool(tmp_path / 'set' / 'a', np.zeros((2, 8, 8, 3), np.uint8), 'a')
    with pytest.raises(UsageError, match=r'1 \.npy files.*give each pool as its own SOURCE'):
        pack([Source(tmp_path / 'set')], tmp_path / 'pool', RECIPE, workers=0)


def test_a_cut_archive(tmp_path, pictures):
    path = write_tar(tmp_path / 'a.tar', pictures)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=r'a.tar ends early.* 1?\d images .*--allow-truncated'):
        pack([Source(path)], tmp_path / 'pool', RECIPE, workers=2)
    assert not (tmp_path / 'pool').exists()
    report = pack([Source(path, allow_truncated=True)], tmp_path / 'pool', RECIPE, workers=0)
    assert report.images == report.resumed > 5  # all of them waited
    assert 'a.tar ends early' in report.cuts[0]
    assert ImagePool(tmp_path / 'pool').meta['cut_archives'] == report.cuts


def test_a_cut_archive_that_is_copied_again(tmp_path, pictures):
    whole = write_tar(tmp_path / 'whole.tar', pictures).read_bytes()
    root, again = tmp_path / 'pool', 'Copy the archive again'
    path = tmp_path / 'set' / 'a.tar'
    path.parent.mkdir()
    for source, remedy in (
        (path, f'{again} and remove {root}.part, or'),
        (path.parent, f'{again}, or'),  # a folder is told by its names
    ):
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UsageError, match=re.escape(remedy)):
            pack([Source(source)], root, RECIPE, workers=0)
        path.write_bytes(whole)
        if source is path:
            shutil.rmtree(f'{root}.part')
        report = pack([Source(source)], root, RECIPE, workers=0)
        assert report.images == 24 and (report.resumed > 0) == (source is not path)
        shutil.rmtree(root)


# --- interruptions ----------------------------------------------------------------------------


def test_never_overwrites(tmp_path, folder):
    pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)
    before = contents(tmp_path / 'pool')
    with pytest.raises(UsageError, match='exists already'):
        pack([Source(folder)], tmp_path / 'pool', Recipe(4), workers=0)
    assert contents(tmp_path / 'pool') == before


def run_and_kill(prepare, arguments):
    """Packs in a process of its own, which ``prepare`` makes kill itself."""

    def target():
        prepare()
        pack(*arguments, workers=0, labels=True)

    process = multiprocessing.get_context('fork').Process(target=target)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_write(number):
    """Dies in the middle of the ``number``-th write: header, journal, then two per block."""

    def prepare():
        write, calls = part._write, iter(range(number, -1, -1))

        def dying(file, data):
            if next(calls) == 0:
                write(file, memoryview(data)[: len(data) // 2])
                kill()
            write(file, data)

        part._write = dying

    return prepare


def killed_before(name, number=0):
    """Dies instead of the ``number``-th call of a function of os."""

    def prepare():
        function, calls = getattr(os, name), iter(range(number, -1, -1))

        def dying(*args, **kwargs):
            if next(calls) == 0:
                kill()
            return function(*args, **kwargs)

        setattr(os, name, dying)

    return prepare


@pytest.mark.skipif(sys.platform != 'linux', reason='kills a forked process')
@pytest.mark.parametrize(
    'prepare',
    [killed_in_write(number) for number in (0, 1, 2, 3, 6, 7, 13)]
    + [killed_before('fsync', number) for number in range(5)]
    + [killed_before('replace'), killed_before('rename')],
)
def test_kill_9_and_run_again(tmp_path, pictures, prepare):
    source = Source(write_tar(tmp_path / 'a.tar.gz', pictures, 'w:gz'))
    pack([source], tmp_path / 'whole', RECIPE, 'p', workers=0, labels=True)
    run_and_kill(prepare, ([source], tmp_path / 'pool', RECIPE, 'p'))
    assert not (tmp_path / 'pool').exists()
    if is_pool(tmp_path / 'pool.part'):  # only where nothing but the rename is missing
        ImagePool(tmp_path / 'pool.part').verify()
    report = pack([source], tmp_path / 'pool', RECIPE, 'p', workers=0, labels=True)
    assert report.images == 24
    assert contents(tmp_path / 'pool') == contents(tmp_path / 'whole')
    assert not (tmp_path / 'pool.part').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='kills a forked process')
def test_resuming_decodes_nothing_again(tmp_path, folder, monkeypatch):
    run_and_kill(killed_in_write(2 + 2 * 4), ([Source(folder)], tmp_path / 'pool', RECIPE))
    decoded = []
    decode = packer.decode_block
    monkeypatch.setattr(packer, 'decode_block', lambda c, r: decoded.extend(c) or decode(c, r))
    report = pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0, labels=True)
    assert (report.resumed, len(decoded)) == (16, 8)  # four of six blocks were whole


def test_a_pool_within_its_own_source_is_resumed(tmp_path, folder, monkeypatch):
    append, calls = part.PartialPool.append, iter(range(9))

    def interrupted(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return append(*arguments)

    monkeypatch.setattr(part.PartialPool, 'append', interrupted)
    root = folder / 'ant' / 'pool'
    with pytest.raises(KeyboardInterrupt):
        pack([Source(folder)], root, RECIPE, workers=0)
    monkeypatch.undo()
    report = pack([Source(folder)], root, RECIPE, workers=0)
    assert report.resumed > 0 and (report.images, report.ignored) == (24, {})


@pytest.fixture
def unfinished(tmp_path, folder):
    run_and_kill(killed_in_write(2 + 2 * 4), ([Source(folder)], tmp_path / 'pool', RECIPE))
    return tmp_path / 'pool.part'


@pytest.mark.skipif(sys.platform != 'linux', reason='kills a forked process')
def test_blocks_that_the_disk_lost_are_packed_again(tmp_path, folder, unfinished):
    pack([Source(folder)], tmp_path / 'whole', RECIPE, 'pool', workers=0, labels=True)
    with open(unfinished / 'images.npy', 'r+b') as file:  # as after a power cut
        file.seek(128 + 6 * 192)
        file.write(bytes(192))
    report = pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0, labels=True)
    assert report.resumed == 4
    assert contents(tmp_path / 'pool') == contents(tmp_path / 'whole')


@pytest.mark.skipif(sys.platform != 'linux', reason='kills a forked process')
def test_an_unfinished_pool_of_something_else(tmp_path, folder, unfinished):
    options = dict(workers=0, labels=True)
    few = Source(folder, include=['ant/*'])
    for source, recipe, changes, words in (
        (Source(folder), Recipe(9), {}, 'size is 8 there, 9 now'),
        (Source(folder), Recipe(8, 'lanczos'), {}, 'filter is box there, lanczos now'),
        (Source(folder), Recipe(8, mode='center-crop'), {}, 'mode is squash there'),
        (Source(folder), Recipe(8, grey=True), {}, 'grey is False there, True now'),
        (Source(folder), RECIPE, dict(labels=False), 'labels is True there, False now'),
        (Source(folder), RECIPE, dict(limit=20), 'limit is None there, 20 now'),
        (few, RECIPE, {}, r"'include': \[\].* there, .*'include': \['ant/\*'\].* now"),
    ):
        with pytest.raises(UsageError, match=words):
            pack([source], tmp_path / 'pool', recipe, **{**options, **changes})
    (folder / 'new.png').write_bytes(b'')
    with pytest.raises(UsageError, match='sources is .* there'):
        pack([Source(folder)], tmp_path / 'pool', RECIPE, **options)


def test_two_processes_on_one_pool(tmp_path, folder, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    (tmp_path / 'pool.part').mkdir()
    monkeypatch.setattr(part.time, 'sleep', lambda seconds: None)
    with open(tmp_path / 'pool.part' / 'journal.jsonl', 'ab') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match='Another process is packing into .*pool.part'):
            pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)


def test_a_file_system_without_locks(tmp_path, folder, monkeypatch):
    fcntl = pytest.importorskip('fcntl')

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', flock)
    assert pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0).images == 24


def test_a_full_disk(tmp_path, folder, monkeypatch):
    write = part._write
    left = iter([None] * 9)

    def full(file, data):
        if next(left, 'none') == 'none':
            write(file, memoryview(data)[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)

    monkeypatch.setattr(part, '_write', full)
    with pytest.raises(UsageError, match='pool.part failed: .*No space left.*Free some space'):
        pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)
    monkeypatch.undo()
    report = pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=0)
    assert (report.images, report.resumed) == (24, 12)
    ImagePool(tmp_path / 'pool').verify()


def die(contents, recipe):
    """Stands in for a decoder that takes all memory there is."""
    kill()


@pytest.mark.skipif(sys.platform != 'linux', reason='forks')
def test_a_killed_worker(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(packer, 'decode_block', die)
    with pytest.raises(UsageError, match='worker was killed.*fewer --workers'):
        pack([Source(folder)], tmp_path / 'pool', RECIPE, workers=1)


def test_blocks_are_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(packer, '_BLOCK_IMAGES', 256)
    monkeypatch.setattr(packer, '_BLOCK_BYTES', 10_000)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    source = Source(write_tar(tmp_path / 'a.tar', {f'{k}.png': encode(noise) for k in range(9)}))
    blocks = [len(block) for _, block in packer._blocks([source], 0, None)]
    assert blocks == [3, 3, 3]  # 4.9 kB each: the third passes the bound


def test_trim():
    assert part.trim(['set/a/images', 'set/b/images']) == ['a', 'b']
    assert part.trim(['set/a', 'set/a/b']) == ['a', 'a/b']
    assert part.trim(['', 'a']) == ['', 'a']
    assert part.trim(['only/one']) == ['one']
