# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A pool's folder that grows: what is committed stays whole, whatever kills the writer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import write_json

from .image_pool import POOL_FORMAT, read_meta, refuse_taken, remove_stale, sync_folder

_HEADER = 128  # bytes of an .npy header, whatever the number of rows
_READ = 2**22


class BankFiles:
    """``images.npy``, ``labels.npy`` and ``meta.json`` of a bank, open for writing.

    ``meta.json`` is replaced in one step and is what counts: rows beyond its ``count``, left by a
    writer that was killed, are cut by the next. So the folder is an :class:`ImagePool` at any time
    from the first image on, and :meth:`append` is all or nothing. The sha256 grows with the bank.

    Args:
        root: Folder made by :meth:`create`.

    Raises:
        UsageError: The folder is no bank, or its files are shorter than its description says.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.meta = read_bank(root)
        for stale in root.glob('.meta-*.json'):  # of a writer killed on its way to a commit
            stale.unlink(missing_ok=True)
        for path, row in self._rows().items():
            if not path.is_file() or path.stat().st_size < _HEADER + self.meta['count'] * row:
                raise UsageError(
                    f'{path} is shorter than the {self.meta["count"]:,} images that meta.json '
                    'counts: the bank is damaged. Remove the folder and make the bank again.'
                )
        self._cut()
        self.digest = self._hash(self.meta['count'])
        self._check_hash('meta.json', self.digest, self.meta['sha256'])

    @classmethod
    def create(
        cls, root: Path, shape: tuple[int, int, int], name: str, facts: Mapping[str, Any]
    ) -> BankFiles:
        """Make an empty bank; it appears whole or not at all.

        Args:
            root: Folder to make; it must not exist yet, or be empty.
            shape: ``(H, W, C)`` of an image.
            name: Short name, shown in logs and summaries.
            facts: JSON entries about where the images come from.

        Raises:
            UsageError: ``root`` is taken, or cannot be written.
        """
        refuse_taken(root)
        scratch = root.parent / f'.{root.name}.tmp-{uuid.uuid4().hex}'
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(root)
            scratch.mkdir()
            for path, header in _headers(scratch, [0, *shape]).items():
                path.write_bytes(header)
            meta = dict(
                created_by='mmdfkd.datasets.ImageBank',
                format=POOL_FORMAT,
                name=name,
                count=0,
                shape=[0, *shape],
                sha256=hashlib.sha256().hexdigest(),
                bank=dict(rounds=0, **facts),
            )
            write_json(scratch / 'meta.json', meta)
            os.rename(scratch, root)
            sync_folder(root.parent)
        except OSError as error:
            raise UsageError(
                f'The bank {root} cannot be made: {error.strerror}. Free some space there, or '
                'choose a folder that can be written.'
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return cls(root)

    def append(self, images: np.ndarray, targets: np.ndarray) -> None:
        """Add the images of one round, all or none.

        Args:
            images: uint8 ``(N, H, W, C)``.
            targets: int64 ``(N,)``.

        Raises:
            UsageError: The disk is full or cannot be written, or somebody else has written here;
                the bank is what it was.
        """
        if read_bank(self.root) != self.meta:
            raise UsageError(
                f'The bank {self.root} has been changed by another process since this one opened '
                'it. Let only one run write to it: give each its own --work-dir.'
            )
        count = self.meta['count'] + len(images)
        images = np.ascontiguousarray(images)
        digest = self.digest.copy()
        digest.update(images.data.cast('B'))
        rows = zip(self._rows().items(), (images, targets), strict=True)
        try:
            for (path, row), array in rows:
                with path.open('r+b') as file:
                    file.seek(_HEADER + self.meta['count'] * row)
                    file.write(np.ascontiguousarray(array).data.cast('B'))
                    _sync(file)
            self._write_headers(count)
            self._commit(count, self.meta['bank']['rounds'] + 1, digest)
        except OSError as error:
            with contextlib.suppress(OSError):  # or else the next writer does it
                self._cut()
            size = images.nbytes / 2**20
            raise UsageError(
                f'The bank {self.root} could not take {len(images):,} more images ({size:.1f} '
                f'MiB): {error.strerror}. Its {self.meta["count"]:,} images are safe. Free some '
                'space there and go on with the same command (tools/train.py: with --resume).'
            ) from error

    def truncate(self, count: int, rounds: int, sha256: str) -> None:
        """Cut the bank to its first ``count`` images, the work of ``rounds`` rounds.

        Raises:
            UsageError: These are not the images of that hash; nothing is cut.
        """
        digest = self._hash(count)
        self._check_hash('the checkpoint', digest, sha256)
        self._commit(count, rounds, digest)
        self._cut()

    def _check_hash(self, source: str, digest: Any, sha256: str) -> None:
        if digest.hexdigest() != sha256:
            raise UsageError(
                f'The images of the bank {self.root} are not those that {source} names (sha256 '
                f'{digest.hexdigest()[:16]}... instead of {sha256[:16]}...). The bank is '
                'damaged, or another run has taken its place: start anew without resuming.'
            )

    def _rows(self) -> dict[Path, int]:
        """Bytes of a row, by file."""
        row = int(np.prod(self.meta['shape'][1:]))
        return {self.root / 'images.npy': row, self.root / 'labels.npy': 8}

    def _write_headers(self, count: int) -> None:
        for path, header in _headers(self.root, [count, *self.meta['shape'][1:]]).items():
            with path.open('r+b') as file:
                file.write(header)
                _sync(file)

    def _commit(self, count: int, rounds: int, digest: Any) -> None:
        meta = dict(
            self.meta,
            count=count,
            shape=[count, *self.meta['shape'][1:]],
            sha256=digest.hexdigest(),
            bank=dict(self.meta['bank'], rounds=rounds),
        )
        write_json(self.root / 'meta.json', meta)
        self.meta, self.digest = meta, digest
        with contextlib.suppress(OSError):  # it is committed, if perhaps not yet on the platter
            sync_folder(self.root)

    def _cut(self) -> None:
        """Remove rows that are not committed; headers first, so that no reader asks for them."""
        self._write_headers(self.meta['count'])
        for path, row in self._rows().items():
            os.truncate(path, _HEADER + self.meta['count'] * row)

    def _hash(self, count: int) -> Any:
        digest = hashlib.sha256()
        left = count * self._rows()[self.root / 'images.npy']
        with (self.root / 'images.npy').open('rb') as file:
            file.seek(_HEADER)
            while left > 0 and (block := file.read(min(left, _READ))):
                digest.update(block)
                left -= len(block)
        return digest


def read_bank(root: Path) -> dict[str, Any]:
    """Read and check ``meta.json`` of a bank, empty or not.

    Raises:
        UsageError: The folder holds something else.
    """
    meta = read_meta(root, may_be_empty=True)
    if 'bank' not in meta:
        raise UsageError(
            f'{root} is a finished image pool, no bank that grows; it is left as it is. Choose '
            "another folder, or train from it with dataset=dict(type='ImagePool', root=...)."
        )
    return meta


def set_aside(root: Path) -> Path:
    """Rename a folder to ``<name>_1``, or the next number that is free; return the new path.

    Raises:
        UsageError: It cannot be renamed.
    """
    number = 1
    while (target := root.with_name(f'{root.name}_{number}')).exists():
        number += 1
    try:
        os.rename(root, target)
    except OSError as error:
        raise UsageError(
            f'{root} is of an earlier run and cannot be renamed to {target.name}: '
            f'{error.strerror}. Rename or remove it, or choose another --work-dir.'
        ) from error
    return target


def _headers(root: Path, shape: list[int]) -> dict[Path, bytes]:
    described = {
        'images.npy': dict(descr='|u1', fortran_order=False, shape=tuple(shape)),
        'labels.npy': dict(descr='<i8', fortran_order=False, shape=(shape[0],)),
    }
    headers = {}
    for name, description in described.items():
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, description)
        header = buffer.getvalue()
        # The length must not depend on the number of rows: it is written over in place.
        length = (_HEADER - 10).to_bytes(2, 'little')
        headers[root / name] = header[:8] + length + header[10:-1].ljust(_HEADER - 11) + b'\n'
    return headers


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
