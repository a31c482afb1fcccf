# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A pool while it grows: ``POOL.part`` beside its place, which survives a kill at any moment.

``images.npy`` grows by whole blocks, its header blank, so that nobody can take it for an array.
``journal.jsonl`` says in one line per block what it holds and its checksum; a block without a
sound line does not exist. A pool that is complete gets its header and description and is renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import try_lock

from ..image_pool import POOL_FORMAT, is_pool, read_meta, refuse_taken, sync_folder
from .sources import sort_key

_HEADER_BYTES = 128
_CHUNK_BYTES = 2**22


class Block(NamedTuple):
    """What the journal says of one block.

    Attributes:
        source: Place of its source.
        names: Names of its M images within the source.
        labels: Their classes; empty where they are not wanted.
        skipped: Names of the images that could not be read, and why.
        crc: CRC-32 of the M images.
    """

    source: int
    names: list[str]
    labels: list[str]
    skipped: list[tuple[str, str]]
    crc: int = 0


class PartialPool:
    """The unfinished pool; use it in a ``with`` block, which closes its files.

    Args:
        root: Where the finished pool will be.
        header: What is packed and how, in JSON types; an unfinished pool is only continued under
            an equal one.
        shape: ``(S, S, C)`` of an image.

    Attributes:
        entries: Images of the sources dealt with so far, unreadable ones included.
        count: Images in the pool so far.
        reasons: How often images were skipped, by reason.

    Raises:
        UsageError: ``root`` is taken, or an unfinished pool of other sources or settings, or of a
            process that is still at it, is in the way.
    """

    def __init__(self, root: Path, header: dict[str, Any], shape: tuple[int, int, int]) -> None:
        refuse_taken(root)
        self.root = root
        self.folder = root.with_name(f'{root.name}.part')
        self.header: dict[str, Any] = json.loads(json.dumps(header))
        self.shape = shape
        self.entries = self.count = 0
        self.reasons: Counter[str] = Counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal: IO[bytes] = open(self.folder / 'journal.jsonl', 'a+b', buffering=0)
        self._images: IO[bytes] = open(self.folder / 'images.npy', 'a+b', buffering=0)
        try:
            _lock(self._journal, self.folder)
            self._resume()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> PartialPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.close()
        self._images.close()

    def discard(self) -> None:
        """Removes it, for where there is nothing to keep."""
        self.__exit__()
        shutil.rmtree(self.folder)

    @property
    def is_complete(self) -> bool:
        """Whether only the last rename is missing."""
        return is_pool(self.folder)

    # --- growing --------------------------------------------------------------------------------

    def append(self, block: Block, rows: np.ndarray) -> None:
        """Adds a block; ``rows`` are its images, uint8 (M, S, S, C)."""
        data = np.ascontiguousarray(rows).data.cast('B') if len(rows) else b''
        _write(self._images, data)
        block = block._replace(crc=zlib.crc32(data))
        _write(self._journal, json.dumps(block).encode() + b'\n')
        self._count(block)

    def _count(self, block: Block) -> None:
        self.count += len(block.names)
        self.entries += len(block.names) + len(block.skipped)
        self.reasons.update(reason for _, reason in block.skipped)

    def _resume(self) -> None:
        """Finds the sound blocks, and cuts off what follows them."""
        self._journal.seek(0)
        header = _parse(self._journal.readline())
        if header is None:  # killed before it began
            self._restart()
            return
        for key, ours in self.header.items():
            if header.get(key) != ours:
                raise UsageError(
                    f'{self.folder} holds an unfinished pool of other sources or settings: {key} '
                    f'is {header.get(key)} there, {ours} now. Finish that one with its own '
                    'command, or remove the folder.'
                )
        if self.is_complete:
            self.count = read_meta(self.folder)['count']
            return
        end = self._journal.tell()
        self._images.seek(_HEADER_BYTES)
        for block, position in self._blocks():
            rows = self._images.read(len(block.names) * self._row_bytes)
            if len(rows) != len(block.names) * self._row_bytes or zlib.crc32(rows) != block.crc:
                break
            self._count(block)
            end = position
        self._journal.truncate(end)
        self._images.truncate(_HEADER_BYTES + self.count * self._row_bytes)

    def _restart(self) -> None:
        self._journal.truncate(0)
        self._images.truncate(0)
        _write(self._images, bytes(_HEADER_BYTES))
        _write(self._journal, json.dumps(self.header).encode() + b'\n')

    def _blocks(self) -> Iterator[tuple[Block, int]]:
        """Yields the blocks of the journal, and where the line of each ends."""
        with open(self.folder / 'journal.jsonl', 'rb') as journal:
            journal.readline()
            while (content := _parse(journal.readline())) is not None:
                yield Block(*content), journal.tell()

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape))

    # --- finishing ------------------------------------------------------------------------------

    def finish(self, name: str, prefixes: Sequence[str], labels: bool, meta: dict) -> None:
        """Sorts, describes and renames: from here on it is a pool.

        Args:
            name: Name of the pool.
            prefixes: For each source what its names begin with in ``names.txt``.
            labels: Whether to keep the classes aside.
            meta: Further entries of ``meta.json``.
        """
        if not self.is_complete:
            order = self._order()
            extra = self._write_labels(order) if labels else {}
            self._write_names(order, prefixes)
            digest = self._write_images(order)
            description = {
                **meta,
                **extra,
                'format': POOL_FORMAT,
                'name': name,
                'count': self.count,
                'shape': [self.count, *self.shape],
                'sha256': digest,
            }
            with self._create('meta.json') as file:
                file.write(json.dumps(description, indent=2).encode())
        self.__exit__()
        sync_folder(self.folder)
        refuse_taken(self.root)
        os.rename(self.folder, self.root)
        (self.root / 'journal.jsonl').unlink()
        sync_folder(self.root.parent)

    def _order(self) -> list[int] | None:
        """Returns the sorted order of the images, None where they are in order already."""
        if all(first <= second for first, second in pairwise(self._keys())):
            return None
        keys = list(self._keys())
        return sorted(range(len(keys)), key=keys.__getitem__)

    def _keys(self) -> Iterator[tuple[int, str]]:
        for block, _ in self._blocks():
            for name in block.names:
                yield block.source, sort_key(name)

    def _write_images(self, order: list[int] | None) -> str:
        """Completes the array, in order; returns the sha256 of its images."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {'descr': '|u1', 'fortran_order': False, 'shape': (self.count, *self.shape)}
        )
        assert len(head.getvalue()) == _HEADER_BYTES
        path, digest = self.folder / 'images.npy', hashlib.sha256()
        if order is None:
            with open(path, 'r+b') as file:
                file.write(head.getvalue())
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                os.fsync(file.fileno())
            return digest.hexdigest()
        width = self._row_bytes
        with open(path, 'rb') as source, self._create('sorted.npy') as target:
            target.write(head.getvalue())
            for place in order:
                source.seek(_HEADER_BYTES + place * width)
                row = source.read(width)
                digest.update(row)
                target.write(row)
        os.replace(self.folder / 'sorted.npy', path)
        return digest.hexdigest()

    def _write_names(self, order: list[int] | None, prefixes: Sequence[str]) -> None:
        names = (
            _line(prefixes[block.source] + name)
            for block, _ in self._blocks()
            for name in block.names
        )
        if order is not None:
            unsorted = list(names)
            names = (unsorted[place] for place in order)
        with self._create('names.txt') as file:
            file.writelines(names)
        with self._create('skipped.txt') as file:
            for block, _ in self._blocks():
                for name, reason in block.skipped:
                    file.write(_line(f'{prefixes[block.source]}{name}\t{reason}'))

    def _write_labels(self, order: list[int] | None) -> dict[str, Any]:
        """Writes ``labels.npy``; returns what the description should say of them."""
        codes: dict[str, int] = {}
        column = array('q')
        for block, _ in self._blocks():
            column.extend(codes.setdefault(label, len(codes)) for label in block.labels)
        numbers = np.array(column)[order if order is not None else slice(None)]
        if all(label.lstrip('-').isdecimal() for label in codes):
            values, extra = [int(label) for label in codes], {}
        else:
            classes = sorted(codes, key=sort_key)
            place = {label: k for k, label in enumerate(classes)}
            values, extra = [place[label] for label in codes], {'classes': trim(classes)}
        with self._create('labels.npy') as file:
            np.save(file, np.array(values, np.int64)[numbers])
        return extra

    @contextmanager
    def _create(self, name: str) -> Iterator[IO[bytes]]:
        """A new file that is on the disk when it is closed."""
        with open(self.folder / name, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


def trim(folders: Sequence[str]) -> list[str]:
    """Takes from the names of folders what all of them begin and end with.

    ``['set/train/cat/images', 'set/train/dog/images']`` becomes ``['cat', 'dog']``.
    """
    parts = [folder.split('/') for folder in folders]
    shortest = min(map(len, parts)) - 1
    first = last = 0
    while first < shortest and len({part[first] for part in parts}) == 1:
        first += 1
    while last < shortest - first and len({part[-1 - last] for part in parts}) == 1:
        last += 1
    return ['/'.join(part[first : len(part) - last]) for part in parts]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line) if line.endswith(b'\n') else None
    except ValueError:
        return None


def _line(text: str) -> bytes:
    # Names may hold line breaks, and bytes that are no text at all.
    return os.fsencode(text.replace('\n', '\\n').replace('\r', '\\r')) + b'\n'


def _write(file: IO[bytes], data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]


def _lock(file: IO[bytes], folder: Path) -> None:
    for _ in range(30):  # workers of a killed process live on for a moment
        if try_lock(file):
            return
        time.sleep(0.1)
    raise UsageError(
        f'Another process is packing into {folder}. Wait for it, or choose another --out.'
    )
