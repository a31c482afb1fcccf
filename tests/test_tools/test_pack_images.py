# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The dataset converters as a user runs them."""

import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mmdfkd.datasets import ImagePool, packing, write_pool
from mmdfkd.datasets.packing import read_names
from mmdfkd.utils import UsageError

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'dataset_converters'
PICTURE = ROOT / 'docs' / 'en' / '_static' / 'banner.png'
LENET5 = ROOT / 'configs' / 'kd3' / 'kd3_lenet5_lenet5-half_1xb128-40e_digits.py'


class Result(NamedTuple):
    """What a command leaves."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a tool as a command line would, within this process."""
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))

    def run(tool, *arguments):
        path = TOOLS / f'{tool}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capsys.readouterr())

    return run


def picture(random, details=10):
    small = random.integers(0, 256, (details, details, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """30 pictures in two folders; 2 of them are copied to a third folder, in JPEG."""
    root, random = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for kind in ('train/ant', 'train/bee', 'val'):
        (root / kind).mkdir(parents=True)
    for k in range(30):
        image = picture(random)
        image.save(root / 'train' / ('ant' if k % 2 else 'bee') / f'{k:02d}.png')
        if k in (4, 5):
            image.save(root / 'val' / f'{k:02d}.jpg', quality=80)
    picture(random).save(root / 'val' / '99.png')
    return root


def test_pack_labels_and_duplicates(tmp_path, folder, run):
    out = tmp_path / 'pool'
    options = ['--size', 16, '--filter', 'bicubic', '--include', 'train/*', '--labels']
    options += ['--workers', 2, '--dedup-against', folder / 'val']
    result = run('pack_images', folder, '--out', out, *options)
    assert result.returncode == 0, result.stderr
    assert f'{out}: 30 images\n' in result.stdout
    assert '0 exact and 2 perceptual duplicates of the 3 images' in result.stdout
    pool = ImagePool(out, keep='keep.npy')
    pool.verify()
    assert (len(pool), pool.images.shape[1:], pool.meta['filter']) == (28, (16, 16, 3), 'bicubic')
    assert pool.meta['classes'] == ['ant', 'bee']
    assert np.bincount(pool.extra('labels')).tolist() == [14, 14]
    facts = json.loads((out / 'keep.json').read_text())
    pairs = facts['pairs']
    assert facts['pool'] == pool.meta['sha256']
    assert [pair[:2] for pair in pairs] == [[2, 1], [17, 0]]  # ant/05 and bee/04

    again = run('pack_images', folder, '--out', out)
    assert (again.returncode, again.stdout) == (2, '')
    assert again.stderr.startswith(f'error: {out} exists already')


@pytest.mark.parametrize(
    ('spec', 'size', 'message'),
    [('empty', 16, 'empty holds no readable image'), ('train', 4, '4 x 4 pixels are too small')],
)
def test_a_set_that_cannot_be_compared_is_refused_before_packing(
    tmp_path, folder, run, spec, size, message
):
    (tmp_path / 'empty').mkdir()
    spec = tmp_path / spec if spec == 'empty' else folder / spec
    out = tmp_path / 'pool'
    result = run('pack_images', folder, '--out', out, '--size', size, '--dedup-against', spec)
    assert result.returncode == 2 and message in result.stderr
    assert not out.exists() and not Path(f'{out}.part').exists()


def test_into_the_current_folder(tmp_path, folder, run, monkeypatch):
    (tmp_path / 'pool').mkdir()
    monkeypatch.chdir(tmp_path / 'pool')
    options = ['--workers', 0, '--size', 16, '--dedup-against', os.path.relpath(folder / 'val')]
    result = run('pack_images', folder, '--out', '.', *options)
    assert result.returncode == 0, result.stderr
    assert f'{tmp_path / "pool"}: 33 images\n' in result.stdout
    assert (tmp_path / 'pool' / 'keep.npy').exists()


def test_the_pool_is_called_as_the_user_does(tmp_path, folder, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run('pack_images', folder, '--out', 'pools/mine', '--workers', 0)
    assert result.stdout.startswith(f'{Path("pools/mine")}: 33 images\n')


@pytest.mark.parametrize(
    ('problem', 'code', 'before'),
    [(KeyboardInterrupt(), 130, ''), (UsageError('No room.'), 2, 'No room. ')],
)
def test_what_stops_the_comparison_leaves_a_finished_pool(
    tmp_path, folder, run, monkeypatch, problem, code, before
):
    def stop(*arguments, **options):
        raise problem

    monkeypatch.setattr(packing, 'without_duplicates', stop)
    out, spec = tmp_path / 'pool', folder / 'val'
    options = ['--workers', 0, '--size', 16, '--dedup-against', spec]
    result = run('pack_images', folder, '--out', out, *options)
    assert result.returncode == code and len(ImagePool(out)) == 33
    assert f'{before}{out} is finished; filter_pool.py {out} --dedup-against {spec} lists' in (
        result.stderr
    )


def test_mostly_unreadable(tmp_path, run):
    for k in range(3):
        (tmp_path / f'{k}.jpg').write_bytes(b'' if k else b'\xff\xd8')
    picture(np.random.default_rng(0)).save(tmp_path / 'good.png')
    (tmp_path / 'notes.txt').write_text('')
    result = run('pack_images', tmp_path, '--out', tmp_path / 'pool', '--workers', 0)
    assert result.returncode == 0
    assert 'passed over, being no images: 1 .txt' in result.stdout
    assert 'skipped: 3 (2 x the file is empty, 1 x ' in result.stdout
    assert 'MORE THAN HALF OF THE IMAGES COULD NOT BE READ: 3 of 4' in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['gone', '--out', 'pool'], 'There is no folder or archive gone'),
        ([PICTURE, '--out', 'pool'], 'banner.png is one image. Give the folder that holds it.'),
        (['.', '--out', 'pool', '--dedup-against', 'gone'], '--dedup-against gone does not exist'),
    ],
)
def test_mistakes(run, arguments, message):
    result = run('pack_images', *arguments)
    assert result.returncode == 2 and message in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='kill -9')
def test_kill_9_leaves_no_process_and_loses_nothing(tmp_path, run, ends):
    buffer = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(buffer, 'JPEG')
    (tmp_path / 'images').mkdir()
    first = tmp_path / 'images' / '0000.jpg'
    first.write_bytes(buffer.getvalue())
    for k in range(1, 1500):
        os.link(first, tmp_path / 'images' / f'{k:04d}.jpg')
    out, journal = tmp_path / 'pool', tmp_path / 'pool.part' / 'journal.jsonl'
    arguments = [tmp_path / 'images', '--out', out, '--workers', '2']
    process = subprocess.Popen(
        [sys.executable, TOOLS / 'pack_images.py', *arguments],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    # Its first line is a header; a block counts from its own line on.
    while not journal.exists() or journal.read_bytes().count(b'\n') < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert ends(process.pid, seconds=100)  # its workers too
    result = run('pack_images', *arguments)
    assert result.returncode == 0, result.stderr
    assert '1,500 images (' in result.stdout and 'before the interruption' in result.stdout
    pool = ImagePool(out)
    pool.verify()
    assert (pool.images == pool.images[0]).all()


@pytest.mark.parametrize('teacher', ['mmdfkd://lenet5_digits', LENET5])
def test_filter_by_a_teacher(tmp_path, run, teacher):
    """By its file, or by a config, as of one's own network."""
    random = np.random.default_rng(0)
    write_pool(tmp_path / 'pool', random.integers(0, 256, (40, 32, 32, 1), np.uint8), 'noise')
    teacher = ['--teacher', teacher, '--cap-per-class', 2]
    result = run('filter_pool', tmp_path / 'pool', *teacher)
    assert result.returncode == 0, result.stderr
    pool = ImagePool(tmp_path / 'pool', keep='keep.npy')
    facts = json.loads((tmp_path / 'pool' / 'keep.json').read_text())
    seen = np.array(facts['cap']['predicted'])
    assert seen.sum() == 40 and len(seen) == 10
    assert len(pool) == facts['kept'] == np.minimum(seen, 2).sum()
    again = run('filter_pool', tmp_path / 'pool', *teacher)
    assert again.returncode == 2 and 'keep.npy exists already' in again.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'Nothing to filter by'),
        (['--cap-per-class', 3], 'need each other'),
        (
            ['--teacher', 'x', '--cap-per-class', 3, '--max-distance', 2],
            '--max-distance is of no use without --dedup-against',
        ),
    ],
)
def test_filter_needs_rules(run, arguments, message):
    result = run('filter_pool', 'pool', *arguments)
    assert result.returncode == 2 and message in result.stderr


def test_make_mnistm(tmp_path, folder, run):
    digits = np.zeros((20, 28, 28, 1), np.uint8)
    write_pool(tmp_path / 'digits', digits, 'digits', {'labels': np.arange(20) % 10})
    out = tmp_path / 'mnistm'
    arguments = [tmp_path / 'digits', folder / 'train', '--out', out]
    for option in (['--split', 'test'], ['--size', 28]):
        result = run('make_mnistm', *arguments, *option)
        assert result.returncode == 2 and 'digits is a pool, which is taken as' in result.stderr
    result = run('make_mnistm', *arguments)
    assert result.returncode == 0, result.stderr
    pool = ImagePool(out)
    assert pool.images.shape == (20, 28, 28, 3) and len(np.unique(pool.images)) > 50
    np.testing.assert_array_equal(pool.extra('labels'), np.arange(20) % 10)


@pytest.mark.realdata
def test_tiny_imagenet_from_its_archive(tmp_path, data_root, run):
    archive = data_root / 'tiny-imagenet-200.tar.xz'
    if not archive.exists():
        pytest.skip(f'no {archive}')
    options = ['--include', '*/train/*', '--limit', 300, '--labels', '--workers', 1]
    result = run('pack_images', archive, '--out', tmp_path / 'pool', *options)
    assert result.returncode == 0, result.stderr
    pool = ImagePool(tmp_path / 'pool')
    pool.verify()
    names = read_names(tmp_path / 'pool')
    assert names == sorted(names) and pool.images.shape == (300, 32, 32, 3)
    with tarfile.open(archive) as files:
        for member in files:
            if member.name in names[::50]:
                image = Image.open(files.extractfile(member)).convert('RGB')
                # 64 to 32 pixels by the box filter: plain means of 2 x 2
                blocks = np.asarray(image).reshape(32, 2, 32, 2, 3).mean((1, 3))
                found = pool.images[names.index(member.name)].astype(float)
                assert np.abs(found - blocks).max() <= 1  # rounded twice
            if names[-1] < member.name:
                break
