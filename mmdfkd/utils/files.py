# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Files are whole or absent: everything a run leaves is written beside its place, then renamed."""

from __future__ import annotations

import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np


def cache_dir() -> Path:
    """Folder of what can be made again: ``$MMDFKD_CACHE_DIR`` or ``~/.cache/mmdfkd``."""
    return Path(os.environ.get('MMDFKD_CACHE_DIR') or '~/.cache/mmdfkd').expanduser()


def recipe_of(path: Path) -> Path | None:
    """The config in ``configs/`` whose run would leave this file or folder in its own."""
    found = Path('configs').glob(f'*/{glob.escape(path.parent.name)}.py')
    return next(found, None) if path.parent.name else None


def folder_to_make(path: str | os.PathLike) -> Path:
    """A path to rename to: '.' and '..' have no name, and a link cannot be replaced."""
    path = Path(path).expanduser()
    return path.resolve() if path.name in ('', '..') or path.is_symlink() else path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place when the block succeeds.

    A failure inside the block removes the temporary file and leaves an older file untouched.
    Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.stem}-', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process after the other make ``path``, where the system has file locks.

    Raises:
        OSError: The folder above cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX: each process makes it, and the first to finish wins
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f'.{path.name}.lock'
    while True:
        with open(name, 'w') as lock:
            with suppress(OSError):  # some network file systems know no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is(name, lock):  # whoever was before took it away
                continue
            try:
                yield
            finally:
                name.unlink(missing_ok=True)
            return


def _is(path: Path, file: IO) -> bool:
    """Tells whether an open file is still that of the path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def try_lock(file: IO) -> bool:
    """Lock an open file while it is open here or in a process started with it, if nobody else has.

    Where the system or the file system knows no locks, everybody gets one.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
        temporary.write_text(text, encoding='utf-8')


def write_npz(path: str | os.PathLike, **arrays: Any) -> None:
    """Write arrays by name as a compressed ``.npz`` file, atomically."""
    with atomic_path(path) as temporary, temporary.open('wb') as file:
        np.savez_compressed(file, **arrays)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _current_umask()
