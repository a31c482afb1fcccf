# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What mmdfkd needs installed, checked in milliseconds when it is imported.

Only the records pip left behind are read, so nothing heavy is imported. Each function returns
one sentence that names the problem and the command that repairs it, or ``None``.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

#: Distribution -> oldest version that works ('0' is any). ``requirements.txt`` says the same.
REQUIRED = {
    'torch': '2.6',
    'torchvision': '0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'numpy': '0',
    'scikit-learn': '0',
    'matplotlib': '0',
    'rich': '0',
    'pillow': '0',
    'packaging': '0',
}

#: Import package -> (the maintained fork, the upstream distributions that write the same files).
FORKS = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite', 'mmcv-full')),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',)),
}


def check_dependencies() -> None:
    """Check the installation.

    Raises:
        ImportError: One sentence with the command that repairs it, where a dependency is missing,
            too old, overwritten by its upstream, or where torch and torchvision do not match.
    """
    problem = missing() or too_old() or overwritten() or torchvision_mismatch()
    if problem:
        raise ImportError(f'mmdfkd cannot start: {problem}')


def missing() -> str | None:
    """Look for distributions that are not installed."""
    absent = [name for name in REQUIRED if _version(name) is None]
    if not absent:
        return None
    # An upstream library in the place of its fork has to leave, or its uninstaller takes the
    # fork's files with it one day.
    upstream = [
        name for fork, names in FORKS.values() if fork in absent for name in names if _version(name)
    ]
    instead = f' (upstream {_join(upstream)} cannot take that place)' if upstream else ''
    return (
        f'this Python lacks {_join(absent)}{instead}; '
        f'run: {_uninstall(upstream)}{_pip()} install {_specifiers(absent)}'
    )


def too_old() -> str | None:
    """Look for distributions older than the oldest version that works."""
    from packaging.version import Version

    old = [name for name in REQUIRED if Version(_version(name) or '0') < Version(REQUIRED[name])]
    if not old:
        return None
    found = _join(
        [f'{name} {_version(name)} (at least {REQUIRED[name]} is needed)' for name in old]
    )
    torch_pair = ['torch', 'torchvision'] if 'torch' in old else []
    renewed = dict.fromkeys(torch_pair + old)
    return f'too old: {found}; run: {_pip()} install --upgrade {_specifiers(renewed)}'


def overwritten() -> str | None:
    """Look for a fork whose files are no longer its own.

    ``pip install mmengine`` over ``onedl-mmengine`` replaces the fork's files without a word,
    and ``pip uninstall mmengine`` afterwards deletes them. pip's records cannot tell who came
    last, so the imported ``version.py`` is compared with the hash the fork was installed with.
    """
    broken = [package for package, (fork, _) in FORKS.items() if not _is_own(package, fork)]
    if not broken:
        return None
    forks = [FORKS[package][0] for package in broken]
    upstream = [name for package in broken for name in FORKS[package][1] if _version(name)]
    culprit = f' by upstream {_join(upstream)}' if upstream else ''
    repair = f'{_pip()} install --force-reinstall --no-deps {_specifiers(forks)}'
    return (
        f'the files of {_join(forks)} were replaced or deleted{culprit}; '
        f'run: {_uninstall(upstream)}{repair}'
    )


def torchvision_mismatch() -> str | None:
    """Look for a torchvision that was not built for the installed torch.

    Two things break torchvision's operators: another torch version than the one its metadata
    asks for, and a CUDA build (PyPI's, on Linux) beside a CPU-only torch of the right version.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    torch, vision = Version(_version('torch') or '0'), _version('torchvision')
    wanted = [
        requirement.specifier
        for requirement in map(Requirement, metadata.requires('torchvision') or [])
        if requirement.name == 'torch' and requirement.marker is None
    ]
    # Pre-releases (2.6.0a0+nv25.1) count as the release they lead to.
    candidates = (str(torch), torch.base_version)
    fits = all(any(w.contains(c, prereleases=True) for c in candidates) for w in wanted)
    repair = f'run: {_pip()} install --force-reinstall torch torchvision'
    if not fits:
        return f'torchvision {vision} needs torch{wanted[0]}, found torch {torch}; {repair}'
    if torch.local == 'cpu' and _links_to_cuda('torchvision'):
        return (
            f'torchvision {vision} is a CUDA build and its operators fail beside the CPU-only '
            f'torch {torch}; {repair}, or take both from https://download.pytorch.org/whl/cpu'
        )
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_own(package: str, fork: str) -> bool:
    """Whether the package that would be imported is the one its fork's installer wrote."""
    record = metadata.distribution(fork).read_text('RECORD') or ''
    lines = [line for line in record.splitlines() if line.startswith(f'{package}/version.py,')]
    if not lines:  # an editable checkout: there is nothing to compare with
        return True
    file = _folder(package) / 'version.py'
    digest = hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b''
    return lines[0].split(',')[1] == f'sha256={base64.urlsafe_b64encode(digest).decode()[:-1]}'


def _links_to_cuda(package: str) -> bool:
    libraries = _folder(package).glob('_C*.so')
    return any(b'libtorch_cuda.so' in library.read_bytes() for library in libraries)


def _folder(package: str) -> Path:
    """Return the folder ``package`` would be imported from (a missing path where there is none)."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else Path(sys.prefix) / '_absent'


def _pip() -> str:
    return f'{sys.executable} -m pip'


def _uninstall(names: list[str]) -> str:
    return f'{_pip()} uninstall -y {" ".join(names)} && ' if names else ''


def _specifiers(names: Iterable[str]) -> str:
    return ' '.join(
        name if REQUIRED[name] == '0' else f'"{name}>={REQUIRED[name]}"' for name in names
    )


def _join(names: list[str]) -> str:
    return ' and '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))
