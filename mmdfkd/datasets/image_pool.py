# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Unlabelled image pools: a folder on disk, memory-mapped, written all or nothing.

A pool is a folder with ``images.npy`` (uint8, (N, H, W, C)) and ``meta.json``; other ``.npy``
files beside them (kinds, labels) are for analysis and never reach a batch.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError
from mmdfkd.utils.files import recipe_of

from .packed import PackedDataset, array_sha256
from .row_view import RowView

POOL_FORMAT = 'mmdfkd-pool/1'
_STALE_SECONDS = 3600.0


@DATASETS.register_module()
class ImagePool(PackedDataset):
    """Unlabelled images from a folder made by :func:`write_pool`.

    Opening checks the description, the shape and the file size, but does not read the images;
    :meth:`verify` reads and checks every byte. Pool and subsets stay memory-mapped, so worker
    processes share them.

    Args:
        root: The folder of the pool.
        ratio: Share of the pool to use, in (0, 1].
        ratio_seed: Seed of the subset. With one seed a smaller subset lies in a larger one.
        keep: ``.npy`` file with the ascending positions of the images to use, relative to
            ``root``; ``tools/dataset_converters/filter_pool.py`` writes it. ``ratio`` is the
            share of these.
        resident: Whether the images live on the training device: True, False, or 'auto' where
            they fit. See :func:`~mmdfkd.datasets.residency.make_resident`.

    Raises:
        UsageError: The folder is no pool, is damaged, ``ratio`` is out of range, or ``keep`` does
            not fit the pool or was made from another.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        ratio: float = 1.0,
        ratio_seed: int = 0,
        keep: str | os.PathLike | None = None,
        resident: bool | Literal['auto'] = 'auto',
    ) -> None:
        if not 0 < ratio <= 1:
            raise UsageError(
                f'ratio={ratio!r} of the pool {root} is out of range. Give the share of the pool '
                'to use as a number above 0 and up to 1.'
            )
        self.root = Path(root).expanduser()
        self.meta = read_meta(self.root)
        self.resident = resident
        self.subset = None if keep is None else _read_keep(self.root / keep, self.meta)
        if ratio < 1:
            kept = np.arange(self.meta['count']) if self.subset is None else self.subset
            order = np.random.RandomState(ratio_seed).permutation(len(kept))
            self.subset = kept[np.sort(order[: max(1, round(ratio * len(kept)))])]
        super().__init__(self._read(), metainfo={'name': self.meta['name']})

    def _read(self) -> np.ndarray | RowView:
        images = map_images(self.root, self.meta)
        return images if self.subset is None else RowView(images, self.subset)

    def _images_sha256(self) -> str:
        # The description already holds the hash of the whole pool: no need to read it all again.
        return self.meta['sha256'] if self.subset is None else super()._images_sha256()

    def verify(self) -> None:
        """Reads the whole pool and compares its sha256 with ``meta.json``.

        Raises:
            UsageError: The bytes differ from those that were written.
        """
        found = array_sha256(map_images(self.root, self.meta))
        if found != self.meta['sha256']:
            raise UsageError(
                f'{self.root / "images.npy"} has sha256 {found[:16]}... but meta.json says '
                f'{self.meta["sha256"][:16]}...: the file has changed since it was written. Make '
                'or copy the pool again.'
            )

    def extra(self, name: str) -> np.ndarray:
        """Reads what was kept aside as ``<name>.npy``, in the order of this dataset's images.

        Args:
            name: For example 'kinds' or 'labels'.

        Raises:
            UsageError: The pool has no such array.
        """
        path = self.root / f'{name}.npy'
        if not path.is_file():
            raise UsageError(
                f'The pool {self.root} holds no {path.name}. Choose one of '
                f'{sorted(p.stem for p in self.root.glob("*.npy") if p.stem != "images")}, or '
                'write the pool again with that array among extra_arrays.'
            )
        array = np.load(path)[: self.meta['count']]  # a bank's may have more, see ImageBank
        return array if self.subset is None else array[self.subset]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the images out: a spawned worker maps the files anew."""
        return {**self.__dict__, 'images': None, 'device_images': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the images again."""
        self.__dict__.update(state)
        self.images = self._read()


def is_pool(root: str | os.PathLike) -> bool:
    """Tells whether a folder has a valid description and an images file that fits it."""
    try:
        map_images(Path(root), read_meta(Path(root)))
    except UsageError:
        return False
    return True


def read_meta(root: Path, may_be_empty: bool = False) -> dict[str, Any]:
    """Reads and checks ``meta.json``.

    Args:
        root: The folder.
        may_be_empty: Whether no image at all is in order, as in a bank that is still to be filled.

    Raises:
        UsageError: It is missing, unreadable, of another format or incomplete.
    """
    path = root / 'meta.json'
    remedy = (
        'Give the folder of a finished pool, or make one: tools/dataset_converters/pack_images.py '
        'packs images, mmdfkd.datasets.write_pool arrays.'
    )
    if not root.exists():
        recipe = recipe_of(root)
        advice = (
            f'Make it first: python tools/train.py {recipe}'
            if recipe
            else 'Make one: tools/dataset_converters/pack_images.py packs images, '
            'tools/synthesize.py fills a bank with those of a teacher.'
        )
        raise UsageError(f'{root} is no image pool: there is no such folder. {advice}')
    try:
        meta = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UsageError(
            f'{root} is no image pool: {path.name}: {error.strerror}. {remedy}'
        ) from error
    except ValueError as error:
        raise UsageError(f'{path} is not valid JSON ({error}). {remedy}') from error
    found = meta.get('format') if isinstance(meta, dict) else type(meta).__name__
    if found != POOL_FORMAT:
        raise UsageError(f'{path} has format {found!r}, expected {POOL_FORMAT!r}. {remedy}')
    shape = meta.get('shape')
    if 'bank' in meta and meta.get('count') == 0 and not may_be_empty:
        raise UsageError(
            f'The bank {root} holds no image yet. Wait for its first round of synthesis, or fill '
            'it with tools/synthesize.py.'
        )
    valid = (
        isinstance(shape, list)
        and len(shape) == 4
        and all(isinstance(length, int) and length > 0 for length in shape[may_be_empty:])
        and meta.get('count') == shape[0]
        and isinstance(meta.get('name'), str)
        and isinstance(meta.get('sha256'), str)
    )
    if not valid:
        raise UsageError(
            f'{path} must hold name, count, shape [N, H, W, C] with N = count, and sha256; found '
            f'{ ({key: meta.get(key) for key in ("name", "count", "shape", "sha256")}) }. {remedy}'
        )
    return meta


def _read_keep(path: Path, meta: dict[str, Any]) -> np.ndarray:
    count = meta['count']
    expected = f'ascending positions below {count}, int64'
    if not path.exists():
        raise UsageError(
            f'keep={str(path)!r} does not exist. Correct the name, or make the list with '
            'tools/dataset_converters/filter_pool.py.'
        )
    try:
        keep = np.load(path)
        found = f'{keep.dtype} of shape {keep.shape}'
        fits = keep.dtype == np.int64 and keep.ndim == 1 and len(keep) > 0
        if fits:
            found = f'{len(keep)} positions from {keep[0]} to {keep[-1]}'
            fits = (np.diff(keep) > 0).all() and keep[0] >= 0 and keep[-1] < count
    except (OSError, ValueError, EOFError) as error:
        found, fits = str(error), False
    if not fits:
        raise UsageError(
            f'keep={str(path)!r} does not fit the pool: expected {expected}, found {found}. Make '
            'it with tools/dataset_converters/filter_pool.py from this pool.'
        )
    of = _pool_of(path)
    if of not in (None, meta['sha256']) and 'bank' not in meta:  # a bank grows, its rows stay
        raise UsageError(
            f'keep={str(path)!r} lists images of another pool: {path.with_suffix(".json").name} '
            f'beside it says sha256 {of[:16]}..., this pool has {meta["sha256"][:16]}.... Make '
            'the list again with tools/dataset_converters/filter_pool.py from this pool.'
        )
    return keep


def _pool_of(keep: Path) -> str | None:
    """The sha256 of the pool a list was made from, where a description beside it says so."""
    try:
        facts = json.loads(keep.with_suffix('.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    sha256 = facts.get('pool') if isinstance(facts, dict) else None
    return sha256 if isinstance(sha256, str) else None


def map_images(root: Path, meta: dict[str, Any]) -> np.ndarray:
    """Maps ``images.npy``, (N, H, W, C), read-only.

    Raises:
        UsageError: It is missing, or does not fit its description.
    """
    path = root / 'images.npy'
    expected = f'uint8 of shape {tuple(meta["shape"])}'
    try:
        images = np.load(path, mmap_mode='r')
        surplus = path.stat().st_size - images.offset - images.nbytes
        if 'bank' in meta:  # being written, perhaps: what its description names is all that counts
            images, surplus = images[: meta['count']], 0
        found = f'{images.dtype} of shape {images.shape} with {surplus} surplus bytes'
        fits = images.dtype == np.uint8 and list(images.shape) == meta['shape'] and surplus == 0
        fits = fits and images.flags.c_contiguous
    except (OSError, ValueError, EOFError) as error:
        found, fits = str(error), False
    if not fits:
        raise UsageError(
            f'{path} does not fit its meta.json: expected {expected}, found {found}. Make or copy '
            'the pool again.'
        )
    return images.view(np.ndarray)


def write_pool(
    root: str | os.PathLike,
    images: np.ndarray,
    name: str,
    extra_arrays: dict[str, np.ndarray] | None = None,
    meta: dict[str, Any] | None = None,
) -> Path:
    """Writes a pool in one step: it appears complete under ``root``, or not at all.

    The files are written to a temporary folder beside ``root``, flushed to disk and renamed.

    Args:
        root: Folder to make; it must not exist yet, or be empty.
        images: uint8 (N, H, W, C), values 0 to 255.
        name: Short name of the pool, shown in logs and summaries.
        extra_arrays: Arrays of length N to keep aside for analysis, by file stem.
        meta: Further JSON entries for ``meta.json``, such as the source of the images.

    Returns:
        The folder.

    Raises:
        UsageError: ``root`` is taken, the arrays do not fit together, or writing failed.
    """
    root = Path(root).expanduser()
    packed = PackedDataset(images, metainfo={'name': name})
    extra_arrays = extra_arrays or {}
    for key, array in extra_arrays.items():
        if key == 'images' or len(array) != len(packed):
            raise UsageError(
                f"The extra array '{key}' of the pool {root} has {len(array)} entries; expected "
                f"one for each of the {len(packed)} images, under a name other than 'images'."
            )
    description = {
        'created_by': 'mmdfkd.datasets.write_pool',
        **(meta or {}),
        'format': POOL_FORMAT,
        'name': name,
        'count': len(packed),
        'shape': list(packed.images.shape),
        'sha256': array_sha256(packed.images),
    }
    refuse_taken(root)
    scratch: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(root)
        scratch = root.parent / f'.{root.name}.tmp-{uuid.uuid4().hex}'
        scratch.mkdir()
        for key, array in {'images': images, **extra_arrays}.items():
            with open(scratch / f'{key}.npy', 'wb') as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        with open(scratch / 'meta.json', 'w', encoding='utf-8') as text:
            json.dump(description, text, indent=2)
            text.flush()
            os.fsync(text.fileno())
        sync_folder(scratch)
        try:
            os.rename(scratch, root)
        except OSError:
            refuse_taken(root)  # another process was first
            raise
        sync_folder(root.parent)
    except OSError as error:
        size = packed.images.nbytes / 2**20
        raise UsageError(
            f'Writing the pool {root} ({size:.0f} MiB) failed: {error}. Free some space there, or '
            'choose a folder that can be written.'
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return root


def remove_stale(root: Path) -> None:
    """Removes temporary folders that killed writers of ``root`` left untouched for an hour."""
    for scratch in root.parent.glob(f'.{root.name}.tmp-*'):
        try:
            touched = max(path.stat().st_mtime for path in [scratch, *scratch.iterdir()])
        except OSError:  # its writer has just renamed it
            continue
        if time.time() - touched > _STALE_SECONDS:
            shutil.rmtree(scratch, ignore_errors=True)


def refuse_taken(root: Path) -> None:
    """Raises a :class:`UsageError` where ``root`` is anything but missing or an empty folder."""
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise UsageError(
            f'{root} exists already and is never overwritten. Remove it, or write the pool to '
            'another folder.'
        )


def sync_folder(folder: Path) -> None:
    """Flushes to the disk what a folder contains, so that a rename survives a power cut."""
    if os.name == 'posix':  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
