# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmdfkd.utils.files import atomic_path, cache_dir, one_at_a_time, recipe_of, write_json


def test_the_recipe_of_what_a_run_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Path('configs/kd/kd_[a]_b.py')
    recipe.parent.mkdir(parents=True)
    recipe.touch()
    assert recipe_of(Path('work_dirs/kd_[a]_b/student.pth')) == recipe
    for path in ('work_dirs/kd_a_b/student.pth', 'work_dirs/kd_*/student.pth', 'student.pth', '/'):
        assert recipe_of(Path(path)) is None


def test_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / 'new/folder/result.json'
    with atomic_path(target) as temporary:
        temporary.write_text('whole')
        assert not target.exists()
        assert temporary.parent == target.parent and temporary.suffix == '.json'
    assert target.read_text() == 'whole'
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('exists', [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, error, exists):
    target = tmp_path / 'result.json'
    if exists:
        target.write_text('old')
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text('half')
        raise error
    assert list(tmp_path.iterdir()) == ([target] if exists else [])
    assert not exists or target.read_text() == 'old'


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    target, synced = tmp_path / 'result.json', []
    monkeypatch.setattr(os, 'fsync', lambda file: synced.append(target.exists()))
    write_json(target, {})
    assert synced == [False]


def test_replaces_an_older_file(tmp_path):
    target = tmp_path / 'result.json'
    target.write_text('old and longer')
    with atomic_path(target) as temporary:
        temporary.write_text('new')
    assert target.read_text() == 'new'


def test_a_killed_process_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / 'result.txt'
    target.write_text('old')
    code = (
        'import os; from mmdfkd.utils.files import atomic_path\n'
        f'with atomic_path({str(target)!r}) as t: t.write_text("half"); os._exit(9)'
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 9
    assert target.read_text() == 'old'


def test_permissions_are_those_of_ordinary_files(tmp_path):
    with atomic_path(tmp_path / 'ours') as temporary:
        temporary.write_text('x')
    (tmp_path / 'theirs').write_text('x')
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'theirs').stat().st_mode


def test_json_round_trip(tmp_path):
    content = dict(a=1, b=[1.5, None, True], name='KD³')
    write_json(tmp_path / 'x.json', content)
    text = (tmp_path / 'x.json').read_text(encoding='utf-8')
    assert json.loads(text) == content
    assert 'KD³' in text and text.endswith('}\n')
    with pytest.raises(TypeError):
        write_json(tmp_path / 'x.json', dict(a=object()))
    assert (tmp_path / 'x.json').read_text(encoding='utf-8') == text


def test_json_is_utf_8_whatever_the_locale(tmp_path):
    code = f'from mmdfkd.utils.files import *; write_json({str(tmp_path / "x.json")!r}, "KD\\xb3")'
    locale = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    env = {**os.environ, **locale, 'PYTHONPATH': os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, '-c', code], env=env, check=True)
    assert (tmp_path / 'x.json').read_bytes() == b'"KD\xc2\xb3"\n'


def test_an_empty_variable_names_no_cache(monkeypatch):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', '')
    assert cache_dir() == Path.home() / '.cache/mmdfkd'


def test_one_at_a_time(tmp_path):
    inside, seen = [], []

    def enter(number):
        with one_at_a_time(tmp_path / 'new/set'):
            inside.append(number)
            time.sleep(0.05)
            seen.append(inside.copy())
            inside.remove(number)

    with ThreadPoolExecutor(3) as threads:  # one comes anew while another waits
        list(threads.map(enter, range(5)))
    assert sorted(seen) == [[0], [1], [2], [3], [4]]
    assert not list((tmp_path / 'new').iterdir())
