# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mmdfkd
from mmdfkd.utils.dependencies import REQUIRED

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(mmdfkd.__path__, prefix='mmdfkd.')]


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize('name', MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


def test_import_is_light():
    # torch alone takes over a second to import.
    code = "import mmdfkd, sys; print([m for m in ('torch', 'mmengine') if m in sys.modules])"
    assert python('-c', code).stdout.strip() == '[]'


def test_import_fails_with_one_sentence_and_the_command(tmp_path):
    stale = tmp_path / 'onedl_mmcv-2.0.0.dist-info'
    stale.mkdir()
    (stale / 'METADATA').write_text('Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 2.0.0\n')
    result = python('-c', 'import mmdfkd', PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'ImportError: mmdfkd cannot start: too old: onedl-mmcv 2.0.0 (at least 2.3.6 is needed); '
        f'run: {sys.executable} -m pip install --upgrade "onedl-mmcv>=2.3.6"'
    )


def reach_configs(folder, package):
    """What mmengine finds of ours, where only the folder ``package`` can be imported from."""
    (folder / 'mine.py').write_text(
        "_base_ = 'mmdfkd::kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'\n"
        'train_cfg = dict(max_epochs=3)\n'
    )
    (folder / 'reach.py').write_text(
        'import mmdfkd.registry\n'
        'from mmengine.config import Config\n'
        'from mmengine.hub import get_config, get_model\n'
        f'cfg = Config.fromfile({str(folder / "mine.py")!r})\n'
        'print(cfg.model.type, cfg.train_cfg.max_epochs)\n'
        "print(get_config('mmdfkd::kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py').filename)\n"
        "print(type(get_model('mmdfkd::teachers/lenet5_digits.py')).__name__)\n"
    )
    result = python(str(folder / 'reach.py'), PYTHONPATH=str(package))
    assert result.returncode == 0, result.stderr
    inherited, path, model = result.stdout.splitlines()[-3:]
    assert (inherited, model) == ('KD3 3', 'Supervised')
    return Path(path)


def test_mmengine_finds_configs_of_a_clone(tmp_path):
    path = reach_configs(tmp_path, ROOT)
    assert path.resolve() == ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'


@pytest.mark.parametrize('init', [True, False])
def test_register_all_modules(init):
    code = (
        'import mmdfkd.utils\n'
        f'mmdfkd.utils.register_all_modules({init})\n'
        'from mmengine.registry import HOOKS, DefaultScope\n'
        "print('SummaryHook' in HOOKS.children['mmdfkd'].module_dict)\n"
        'print(getattr(DefaultScope.get_current_instance(), "scope_name", None))\n'
    )
    assert python('-c', code).stdout.split()[-2:] == ['True', 'mmdfkd' if init else 'None']


def test_requirements_are_those_checked_at_import():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    stated = {r.name: str(r.specifier) for r in map(Requirement, lines)}
    checked = {n: '' if least == '0' else f'>={least}' for n, least in REQUIRED.items()}
    assert stated == checked


@pytest.mark.parametrize('tool', ['ruff', 'codespell[toml]'])
def test_pre_commit_and_make_check_use_one_version(tool):
    pinned = re.search(re.escape(tool) + r'==[\d.]+', (ROOT / 'pyproject.toml').read_text())
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    assert set(re.findall(re.escape(tool) + r'==[\d.]+', hooks)) == {pinned.group()}


def test_build_packs_configs_tools_and_data(tmp_path):
    pytest.importorskip('setuptools', minversion='77')  # reads the license as pyproject states it
    source, built = tmp_path / 'source', tmp_path / 'built'
    ignore = shutil.ignore_patterns(
        '.*', 'build', '*.egg-info', 'tests', 'docs', 'work_dirs', 'data'
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    result = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(built)],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    package = built / 'mmdfkd'
    assert (package / 'py.typed').is_file()
    assert (package / '.mim' / 'model-index.yml').is_file()
    for folder in ('configs', 'tools'):
        originals = {p.relative_to(ROOT) for p in (ROOT / folder).rglob('*.py')}
        packed = {p.relative_to(package / '.mim') for p in (package / '.mim').rglob('*.py')}
        assert originals <= packed
    assert {p.name for p in (ROOT / 'mmdfkd/zoo').glob('*.pth')} == {
        p.name for p in package.glob('zoo/*')
    }
    assert not (source / 'mmdfkd' / '.mim').exists()  # nothing is left in the source tree
    assert reach_configs(tmp_path, built).is_relative_to(package / '.mim/configs')
