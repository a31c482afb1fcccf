# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'misc' / 'check_metafiles.py'


@pytest.fixture
def zoo(tmp_path):
    """The smallest model zoo in order."""
    folder = tmp_path / 'configs' / 'kd'
    (tmp_path / 'configs' / '_base_').mkdir(parents=True)
    folder.mkdir()
    for name in ('kd_a_b.py', 'README.md'):
        (folder / name).touch()
    (tmp_path / 'configs' / 'notes.md').touch()  # no folder, so nothing is asked of it
    (folder / 'metafile.yml').write_text(
        'Collections: [{Name: KD}]\n'
        'Models: [{Name: kd_a_b, In Collection: KD, Config: configs/kd/kd_a_b.py}]\n'
    )
    (tmp_path / 'model-index.yml').write_text('Import: [configs/kd/metafile.yml]\n')
    return tmp_path


def check(root):
    result = subprocess.run([sys.executable, TOOL, root], capture_output=True, text=True)
    assert result.returncode == bool(result.stderr)
    return result.stderr


def test_in_order(zoo):
    assert check(zoo) == ''


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('configs/kd/kd_a_b.py', 'kd_a_b has no config configs/kd/kd_a_b.py.'),
        ('configs/kd/README.md', 'configs/kd has no README.md.'),
        ('configs/kd/metafile.yml', 'configs/kd has no metafile.yml.'),
    ],
)
def test_missing_file(zoo, file, message):
    (zoo / file).unlink()
    assert message in check(zoo)


@pytest.mark.parametrize('file', ['kd_a_c.py', 'ablation/kd_a_b-hint.py'])
def test_a_config_without_a_record(zoo, file):
    config = zoo / 'configs/kd' / file
    config.parent.mkdir(exist_ok=True)
    config.touch()
    assert f'configs/kd/metafile.yml has no model of configs/kd/{file}.' in check(zoo)


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'message'),
    [
        ('model-index.yml', 'configs/kd/metafile.yml', '', 'does not list configs/kd/metafile.yml'),
        ('model-index.yml', 'kd/', 'dk/', 'lists configs/dk/metafile.yml, which does not exist'),
        ('configs/kd/metafile.yml', 'Name: kd_a_b', 'Name: kd_a', 'kd_a must be named after'),
        ('configs/kd/metafile.yml', 'In Collection: KD', 'In Collection: D', 'is in no collection'),
    ],
)
def test_wrong_record(zoo, file, old, new, message):
    path = zoo / file
    path.write_text(path.read_text().replace(old, new))
    assert message in check(zoo)
