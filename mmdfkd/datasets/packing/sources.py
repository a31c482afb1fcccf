# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where images come from: folders, tars, zips, WebDataset shards, batches of rows and pools.

A source yields its images one after the other and holds few of them at a time, whatever its size.
A folder comes in the order of its names, an archive in its own, since a compressed tar can only be
read forwards; the packer sorts afterwards, so the same images make the same pool.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple

from mmdfkd.utils import UsageError

from ..image_pool import ImagePool, is_pool
from .batches import is_batch, read_rows
from .decode import MAX_FILE_BYTES, TOO_LARGE, Content, UnreadableImage

IMAGE_SUFFIXES = frozenset(
    '.jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .tga .ico .pcx '
    '.jp2 .j2k .avif'.split()
)

_TAR_SUFFIXES = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz')
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b'\x1f\x8b': gzip.open,
    b'BZh': bz2.open,
    b'\xfd7zXZ\x00': lzma.open,
}
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    UnicodeDecodeError,  # a name in a zip
    EOFError,
    OSError,
)


class Entry(NamedTuple):
    """One image as its source has it.

    Attributes:
        name: Its path within the source, with '/' on every system.
        content: Its bytes, its file or its pixels; or why it cannot be had.
        label: Its class: of a WebDataset sample its ``.cls``, of a row its label, else its folder.
    """

    name: str
    content: Content | UnreadableImage
    label: str | None


class CutArchive(UsageError):
    """An archive ends too early or is damaged; what comes before has been yielded."""


class Source:
    """Images of one folder, archive, batch file or pool.

    Args:
        path: A folder; a tar (plain, gz, bz2 or xz); a zip; a batch of rows (.npz, pickle or SVHN's
            .mat); or a pool, whose images are named by their position. Tars and zips in a folder,
            and tars in a tar or zip, are read as well.
        include: Patterns of which an image's name must match one, such as ``*/train/*``; ``*``
            stands for '/' too. Empty for all images.
        allow_truncated: Go on after the cut of an archive; ``cuts`` lists it in any case.

    Raises:
        UsageError: There is nothing at ``path``, or it is none of these.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        include: Sequence[str] = (),
        allow_truncated: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        self.include = tuple(include)
        self.allow_truncated = allow_truncated
        self.ignored: Counter[str] = Counter()  # what is no image, by suffix or kind
        self.cuts: list[str] = []
        self.share = 0.0  # of the source that has been read
        if not self.path.exists():
            raise UsageError(f'There is no folder or archive {self.path}. Correct the path.')
        if self.path.is_file() and self.path.suffix.lower() in IMAGE_SUFFIXES:
            raise UsageError(f'{self.path} is one image. Give the folder that holds it.')
        self.is_pool = is_pool(self.path)
        self.left_out: tuple[str, ...] = ()  # folders
        self.stamp = self._stamp()

    def leave_out(self, root: Path) -> None:
        """Passes over a pool that is made within this folder, finished or not."""
        top, root = self.path.resolve(), root.resolve()
        if top in root.parents and not self.is_pool:
            self.left_out = (str(root), f'{root}.part')
            self.stamp = self._stamp()

    def __iter__(self) -> Iterator[Entry]:
        """Yields all images, from the start.

        Raises:
            CutArchive: An archive is truncated or damaged, unless ``allow_truncated``.
        """
        self.share = 0.0
        self.ignored.clear()
        self.cuts.clear()
        if self.is_pool:
            entries = self._pool()
        elif self.path.is_dir():
            entries = self._folder()
        else:
            entries = self._file(self.path, report=self._set_share)
        for entry in entries:
            if not self.include or any(fnmatchcase(entry.name, rule) for rule in self.include):
                yield entry

    def _stamp(self) -> dict[str, Any]:
        """What changes with the source, for resuming: JSON types, nothing but names is read."""
        if self.is_pool:
            return dict(path=str(self.path), sha256=ImagePool(self.path).meta['sha256'])
        if not self.path.is_dir():
            status = self.path.stat()
            return dict(path=str(self.path), bytes=status.st_size, time=status.st_mtime_ns)
        digest, count = hashlib.sha256(), 0
        for name, _ in walk_folder(str(self.path), self.left_out):
            digest.update(os.fsencode(name) + b'\0')
            count += 1
        return dict(path=str(self.path), files=count, names=digest.hexdigest())

    def _set_share(self, share: float) -> None:
        self.share = share

    # --- one function per kind ------------------------------------------------------------------

    def _pool(self) -> Iterator[Entry]:
        pool = ImagePool(self.path)
        labels = pool.extra('labels') if (self.path / 'labels.npy').is_file() else None
        for place in range(len(pool)):
            self.share = place / len(pool)
            label = None if labels is None else str(labels[place])
            yield Entry(f'{place:07d}', pool.images[place], label)

    def _folder(self) -> Iterator[Entry]:
        count = max(1, self.stamp['files'])
        for place, (name, path) in enumerate(walk_folder(str(self.path), self.left_out)):
            self.share = place / count
            if isinstance(path, UnreadableImage):
                yield Entry(name, path, None)
            elif _is_tar(name) or name.lower().endswith('.zip') or is_batch(name):
                yield from self._file(Path(path), f'{name}/')
            elif self._is_image(name):
                yield Entry(name, path, _folder_of(name))

    def _file(
        self, path: Path, prefix: str = '', report: Callable[[float], None] | None = None
    ) -> Iterator[Entry]:
        report = report or _nobody
        name = path.name
        with _opened(path) as file:
            size = max(1, os.fstat(file.fileno()).st_size)
            if name.endswith(('.npz', '.pkl', '.pickle', '.mat')) or is_batch(name):
                yield from self._rows(file, str(path), prefix or f'{name}/', report)
            elif file.peek(2).startswith(b'PK') and zipfile.is_zipfile(file):
                yield from self._zip(path, prefix, report)
            else:
                file.seek(0)
                for entry in self._tar(_decompressed(file, str(path)), str(path), prefix):
                    report(file.tell() / size)
                    yield entry

    def _rows(
        self,
        file: IO[bytes],
        title: str,
        prefix: str,
        report: Callable[[float], None] | None = None,
    ) -> Iterator[Entry]:
        report = report or _nobody
        for place, row in enumerate(read_rows(file, title)):
            report(row.share)
            yield Entry(f'{prefix}{place:07d}', row.pixels, row.label)

    def _zip(self, path: Path, prefix: str, report: Callable[[float], None]) -> Iterator[Entry]:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [
                    (plain_name(member.filename), member)
                    for member in archive.infolist()
                    if not member.is_dir()
                ]
                members.sort(key=lambda item: sort_key(item[0]))
                for place, (inner, member) in enumerate(members):
                    report(place / len(members))
                    if is_hidden(inner):
                        continue
                    name, inside = prefix + inner, f'{path}: {inner}'
                    if _is_tar(name) or is_batch(name):
                        try:
                            stream = archive.open(member)
                        except RuntimeError as error:  # encrypted, or of an unknown method
                            self._cut(inside, error)
                            continue
                        with stream:
                            if _is_tar(name):
                                file = _decompressed(stream, inside)
                                yield from self._tar(file, inside, f'{name}/')
                            else:
                                yield from self._rows(stream, inside, f'{name}/')
                    elif self._is_image(name):
                        content = _read(member.file_size, partial(archive.read, member))
                        yield Entry(name, content, _folder_of(name))
        except CutArchive:
            raise
        except DAMAGE as error:
            self._cut(str(path), error)

    def _tar(self, stream: IO[bytes], title: str, prefix: str) -> Iterator[Entry]:
        """Yields what a tar holds; ``stream`` is only read forwards."""
        sample = _Sample()
        try:
            forward: Any = _Forward(stream)
            with tarfile.open(
                fileobj=forward, mode='r|', bufsize=2**20, tarinfo=StrictHeader
            ) as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
                    inner = plain_name(member.name)
                    if is_hidden(inner) or member.isdir():
                        continue
                    if not member.isreg():
                        if member.islnk() or member.issym():  # read forwards, it is gone by now
                            self.ignored['links in a tar'] += 1
                        continue
                    name, inside = prefix + inner, f'{title}: {inner}'
                    file = archive.extractfile(member)
                    assert file is not None  # only links and folders have none
                    if name.endswith('.cls'):
                        sample.set_label(name, file.read(256))
                    elif _is_tar(name):
                        yield from sample.flush()
                        yield from self._tar(_decompressed(file, inside), inside, f'{name}/')
                    elif is_batch(name) and not name.endswith('.npz'):
                        yield from sample.flush()
                        yield from self._rows(file, inside, f'{name}/')
                    elif self._is_image(name):
                        content = _read(member.size, file.read)
                        yield from sample.add(Entry(name, content, _folder_of(name)))
            yield from sample.flush()
        except CutArchive:
            raise
        except DAMAGE as error:
            yield from sample.flush()
            self._cut(title, error)

    def _cut(self, title: str, error: BaseException) -> None:
        text = f'{title} ends early, is damaged or is no archive ({type(error).__name__}: {error})'
        self.cuts.append(text)
        if not self.allow_truncated:
            raise CutArchive(text) from error

    def _is_image(self, name: str) -> bool:
        suffix = os.path.splitext(name)[1].lower()
        if suffix in IMAGE_SUFFIXES or not suffix:
            return True
        self.ignored[suffix] += 1
        return False


def sort_key(name: str) -> str:
    """Order of a pool: folder by folder, as a walk over sorted folders visits them."""
    return name.replace('/', '\0')


def plain_name(name: str) -> str:
    """Returns a name in an archive from its top on: without '//', '.' and '..'."""
    return posixpath.normpath(f'/{name}').lstrip('/')


def is_hidden(name: str) -> bool:
    """Tells what is hidden, or left behind by macOS, or lies in such a folder."""
    return any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))


class _Sample:
    """The image that waits for its class: files of a WebDataset sample share their stem."""

    def __init__(self) -> None:
        self.waiting: Entry | None = None
        self.label = ('', '')  # key and class of the last .cls

    def set_label(self, name: str, text: bytes) -> None:
        self.label = _key(name), text.decode(errors='replace').strip()
        if self.waiting is not None:
            self.waiting = self._labelled(self.waiting)

    def add(self, entry: Entry) -> Iterator[Entry]:
        yield from self.flush()
        self.waiting = self._labelled(entry)

    def flush(self) -> Iterator[Entry]:
        if self.waiting is not None:
            yield self.waiting
            self.waiting = None

    def _labelled(self, entry: Entry) -> Entry:
        key, label = self.label
        return entry._replace(label=label) if _key(entry.name) == key else entry


class StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error: tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """Reads a header; only a block of zeros ends an archive."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f'{error} where the next file should begin') from error


class _Forward:
    """A stream that gives all it has before it fails: ``read`` would drop what came before."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream: Any = stream

    def read(self, size: int) -> bytes:
        return self.stream.read1(size)


def walk_folder(
    folder: str,
    left_out: Sequence[str] = (),
    prefix: str = '',
    above: tuple[tuple[int, int], ...] = (),
) -> Iterator[tuple[str, str | UnreadableImage]]:
    """Yields name and path of the files below a folder in the order of :func:`sort_key`.

    Hidden files and what macOS leaves behind are passed over, and the folders ``left_out``.
    """
    try:
        status = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        reason = f'the folder cannot be listed: {error.strerror}'
        yield prefix.rstrip('/'), UnreadableImage(reason)
        return
    identity = status.st_dev, status.st_ino
    if identity in above or (left_out and os.path.realpath(folder) in left_out):
        return  # a link to a folder above, or not wanted
    for entry in entries:
        if is_hidden(entry.name):
            continue
        name = prefix + entry.name
        try:
            is_folder = entry.is_dir()
            is_file = entry.is_file() or entry.is_symlink()  # neither a pipe nor a device
        except OSError:  # a link to itself; who reads it gets the reason
            is_folder, is_file = False, True
        if is_folder:
            yield from walk_folder(entry.path, left_out, f'{name}/', (*above, identity))
        elif is_file:
            yield name, entry.path


def _opened(path: Path) -> BufferedReader:
    try:
        return open(path, 'rb')
    except OSError as error:
        raise UsageError(f'{path} cannot be opened: {error.strerror}. Correct that.') from error


def _decompressed(file: IO[bytes], title: str) -> IO[bytes]:
    head = file.peek(6) if hasattr(file, 'peek') else b''
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return opener(file)
    if head.startswith(b'\x28\xb5\x2f\xfd'):
        raise UsageError(f'{title} is compressed with zstd, which is not read. Unpack it first.')
    return file


def _read(size: int, read: Callable[[], bytes]) -> bytes | UnreadableImage:
    if size > MAX_FILE_BYTES:
        return UnreadableImage(TOO_LARGE)
    try:
        return read()
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, RuntimeError) as error:
        return UnreadableImage(f'damaged or encrypted in its zip: {error}')


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_TAR_SUFFIXES)


def _nobody(share: float) -> None:
    """Takes a progress report that no one waits for."""


def _folder_of(name: str) -> str:
    return name.rpartition('/')[0]


def _key(name: str) -> str:
    folder, _, file = name.rpartition('/')
    return f'{folder}/{file.split(".")[0]}'
