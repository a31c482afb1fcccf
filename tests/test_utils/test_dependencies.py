# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import base64
import hashlib
import shutil

import pytest

from mmdfkd.utils import dependencies
from mmdfkd.utils.dependencies import check_dependencies, overwritten, torchvision_mismatch


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An extra site-packages folder, and a fork and its upstream that could be installed there."""
    monkeypatch.syspath_prepend(tmp_path)
    forks = {'toyengine': ('fork-toyengine', ('toyengine',))}
    monkeypatch.setattr(dependencies, 'FORKS', forks)
    monkeypatch.setitem(dependencies.REQUIRED, 'fork-toyengine', '1.0')
    return tmp_path


def install(site, distribution, package, version):
    """Do what pip does: unpack files, overwriting others, and record their hashes."""
    code = f'# written by {distribution}\n__version__ = {version!r}\n'.encode()
    (site / package).mkdir(exist_ok=True)
    (site / package / '__init__.py').touch()
    (site / package / 'version.py').write_bytes(code)
    info = site / f'{distribution.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Name: {distribution}\nVersion: {version}\n')
    digest = base64.urlsafe_b64encode(hashlib.sha256(code).digest()).decode().rstrip('=')
    (info / 'RECORD').write_text(f'{package}/version.py,sha256={digest},{len(code)}\n')


def test_this_installation_is_fine():
    check_dependencies()


def test_intact_fork(site):
    install(site, 'fork-toyengine', 'toyengine', '1.1')
    check_dependencies()


def test_fork_over_upstream_is_fine(site):
    # pip list shows both, but the fork came last and its files are the ones imported.
    install(site, 'toyengine', 'toyengine', '0.9')
    install(site, 'fork-toyengine', 'toyengine', '1.1')
    assert overwritten() is None


def test_upstream_over_fork(site):
    install(site, 'fork-toyengine', 'toyengine', '1.1')
    install(site, 'toyengine', 'toyengine', '0.9')
    with pytest.raises(ImportError) as error:
        check_dependencies()
    message = str(error.value)
    assert 'files of fork-toyengine were replaced or deleted by upstream toyengine' in message
    assert '-m pip uninstall -y toyengine && ' in message
    assert message.endswith('--force-reinstall --no-deps "fork-toyengine>=1.0"')


def test_upstream_uninstalled_again(site):
    # Uninstalling the upstream removes the files both distributions wrote.
    install(site, 'fork-toyengine', 'toyengine', '1.1')
    shutil.rmtree(site / 'toyengine')
    message = overwritten()
    assert 'replaced or deleted' in message
    assert 'uninstall' not in message


def test_upstream_instead_of_fork(site):
    install(site, 'toyengine', 'toyengine', '0.9')
    message = dependencies.missing()
    assert 'lacks fork-toyengine (upstream toyengine cannot take that place)' in message
    assert message.index('uninstall -y toyengine') < message.index('install "fork-toyengine>=1.0"')


def test_fork_too_old(site):
    install(site, 'fork-toyengine', 'toyengine', '0.10')
    assert 'fork-toyengine 0.10 (at least 1.0 is needed)' in dependencies.too_old()


def test_all_missing_are_named_at_once(monkeypatch):
    for name in ('not-there', 'nor-here'):
        monkeypatch.setitem(dependencies.REQUIRED, name, '0')
    message = dependencies.missing()
    assert 'lacks not-there and nor-here' in message
    assert message.endswith('-m pip install not-there nor-here')


# Pairs as published; a torchvision's metadata states the torch it was built for.
@pytest.mark.parametrize(
    ('torch', 'wanted', 'fits'),
    [
        ('2.4.0', 'torch==2.4.0', True),
        ('2.5.1', 'torch==2.4.0', False),
        ('2.6.0+cu124', 'torch==2.6.0', True),
        ('2.6.0a0+ecf3bae40a.nv25.1', 'torch==2.6.0', True),
        ('2.15.0', 'torch>=2.14.0', True),
        ('2.13.0+cu130', 'torch>=2.14.0', False),
    ],
)
def test_torchvision_pairs(monkeypatch, torch, wanted, fits):
    versions = {'torch': torch, 'torchvision': '0.0'}
    monkeypatch.setattr(dependencies, '_version', versions.get)
    requires = ['numpy', wanted, 'gdown>=4.7.3; extra == "gdown"']
    monkeypatch.setattr(dependencies.metadata, 'requires', lambda name: requires)
    message = torchvision_mismatch()
    assert (message is None) == fits
    if not fits:
        assert f'needs {wanted}, found torch {torch}' in message
        assert 'install --force-reinstall torch torchvision' in message


@pytest.mark.parametrize(('linked', 'fits'), [(b'libtorch_cuda.so', False), (b'libc.so', True)])
def test_cpu_torch_beside_cuda_torchvision(monkeypatch, tmp_path, linked, fits):
    (tmp_path / '_C.so').write_bytes(b'\x7fELF...libtorch_cpu.so\0' + linked)
    versions = {'torch': '2.13.0+cpu', 'torchvision': '0.28.0'}
    monkeypatch.setattr(dependencies, '_version', versions.get)
    monkeypatch.setattr(dependencies.metadata, 'requires', lambda name: ['torch==2.13.0'])
    monkeypatch.setattr(dependencies, '_folder', lambda package: tmp_path)
    message = torchvision_mismatch()
    assert (message is None) == fits
    if not fits:
        assert 'CUDA build' in message
