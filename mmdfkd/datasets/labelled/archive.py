# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A folder, a tar and a zip look alike: files by name, read in one pass, never unpacked to disk."""

from __future__ import annotations

import logging
import os
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from mmdfkd.utils import UsageError

from ..packing.decode import UnreadableImage
from ..packing.sources import (
    DAMAGE,
    IMAGE_SUFFIXES,
    StrictHeader,
    is_hidden,
    plain_name,
    walk_folder,
)

_MAX_BYTES = 2**32  # of one file; what claims more is a bomb


class File(NamedTuple):
    """One file of a folder or archive.

    Attributes:
        name: Its path from the top, with '/' on every system.
        read: Returns its bytes; call it before asking for the next file.
    """

    name: str
    read: Callable[[], bytes]


def is_image(name: str) -> bool:
    """Tells by the suffix whether a file is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def walk(path: Path) -> Iterator[File]:
    """Yields the files below a folder or inside a tar (plain, gz, bz2, xz) or zip.

    A folder comes in the order of names, an archive in its own. Hidden files and what macOS
    leaves behind (``__MACOSX``, ``._*``) are left out; so are symbolic links inside a tar, which
    the log counts, whereas hard links are files like others and come last. Wrap the loop in
    :func:`reported`: what is damaged shows only when it is reached.
    """
    if path.is_dir():
        files = _walk_folder(path)
    else:
        with open(path, 'rb') as stream:
            is_zip = stream.read(4) in (b'PK\x03\x04', b'PK\x05\x06')
        files = _walk_zip(path) if is_zip else _walk_tar(path)
    for file in files:
        name = plain_name(file.name)
        if not is_hidden(name):
            yield file._replace(name=name)


def stamp(path: Path) -> list[list]:
    """Returns what changes when the files change, without reading them, in JSON types.

    For an archive its size and time; for a folder the times of its subfolders and the size and
    time of every file that is no image. An image overwritten in place does not change it.
    """
    if not path.is_dir():
        status = path.stat()
        return [[path.name, status.st_size, status.st_mtime_ns]]
    folders, entries = {''}, []
    for name, _ in walk_folder(str(path)):
        folder = name.rpartition('/')[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition('/')[0]
        if not is_image(name):
            status = (path / name).lstat()
            entries.append([name, status.st_size, status.st_mtime_ns])
    return [[name, (path / name).stat().st_mtime_ns] for name in sorted(folders)] + entries


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns what reading a damaged archive raises into one :class:`UsageError` that names it."""
    try:
        yield
    except NotImplementedError as error:  # zipfile knows few methods
        raise UsageError(
            f'{path} cannot be read: {error}. Unpack it, and give the folder instead.'
        ) from error
    except DAMAGE as error:
        reason = str(error).split('\n')[0].rstrip(':') or 'no reason given'
        raise UsageError(
            f'{path} cannot be read to its end ({type(error).__name__}: {reason}): it is '
            'truncated, damaged or no folder, tar or zip. Download or copy it again.'
        ) from error


def _walk_folder(path: Path) -> Iterator[File]:
    for name, file in walk_folder(str(path)):
        if isinstance(file, UnreadableImage):
            raise UsageError(f'{path / name}: {file}. Allow it, or remove the folder.')
        yield File(name, Path(file).read_bytes)


def _walk_zip(path: Path) -> Iterator[File]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise UsageError(f'{path} is encrypted; unpack it, and give the folder instead.')
            if not info.is_dir():
                _require_size(path, info.filename, info.file_size)
                yield File(info.filename, partial(archive.read, info))


def _walk_tar(path: Path) -> Iterator[File]:
    links: dict[str, list[str]] = defaultdict(list)  # by the name of the file they stand for
    symbolic = 0
    for archive, member in _members(path):
        symbolic += member.issym()
        if member.islnk():
            links[member.linkname].append(member.name)
        elif member.isfile():
            yield File(member.name, partial(_extract, archive, member))
    if symbolic:
        print_log(f'{path}: {symbolic:,} symbolic links left out', 'current', logging.WARNING)
    if links:  # in another pass, for a compressed archive cannot be read backwards
        for archive, member in _members(path):
            if member.isfile():
                read = cache(partial(_extract, archive, member))
                for name in links.pop(member.name, ()):
                    yield File(name, read)
    for target, names in links.items():
        raise tarfile.ReadError(f'{names[0]} is a link to {target}, which is not there')


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(path, tarinfo=StrictHeader) as archive:
        while (member := archive.next()) is not None:
            if member.isfile():
                _require_size(path, member.name, member.size)
            yield archive, member
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every header


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    data = b'' if stream is None else stream.read()
    if len(data) != member.size:
        raise EOFError(f'{member.name} has {len(data)} of {member.size} bytes')
    return data


def _require_size(path: Path, name: str, size: int) -> None:
    if size > _MAX_BYTES:
        raise UsageError(
            f'{path} says that its file {name} has {size / 2**30:.0f} GiB; at most '
            f'{_MAX_BYTES // 2**30} are read. Check where the archive comes from.'
        )
