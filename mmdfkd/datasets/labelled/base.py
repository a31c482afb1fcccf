# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What labelled sets share: they are found, decoded once, kept on disk and mapped from there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.logging import print_log

from mmdfkd.utils import UsageError, check_choice
from mmdfkd.utils.errors import shorten
from mmdfkd.utils.files import cache_dir, one_at_a_time
from mmdfkd.utils.progress import progress_bar

from ..image_pool import ImagePool, is_pool, write_pool
from ..packed import PackedDataset
from .archive import File, stamp
from .download import Download, fetch, require_md5
from .reader import Part, read_images

_READER_VERSION = 2  # raise it with every change that may change a pixel or a label


class LabelledSet(PackedDataset):
    """A labelled image set, from its publisher's files or from images in folders by class.

    On first use the images are decoded in parallel and written to ``<cache>/datasets``, where
    ``<cache>`` is ``$MMDFKD_CACHE_DIR`` or ``~/.cache/mmdfkd``; from then on the set is mapped
    from there in milliseconds. It is decoded anew when the size or time of the archive changes,
    or when files come to or go from the folder; after overwriting single images in place,
    remove it from the cache. Nothing is unpacked beside the data.

    Args:
        data_root: The archive itself, or the folder that holds or is the set; by default
            ``data/<name>``.
        split: Which part of the set.
        image_size: Side in pixels of the squares to squeeze the images into (bilinear,
            antialiased); None keeps their size, which must then be the same for all.
        grey: Whether to turn colours into ITU-R 601 luma: images (N, H, W, 1) instead of
            (N, H, W, 3).
        download: Whether to fetch the set from its publisher where ``data_root`` lacks it.

    Raises:
        UsageError: The set is missing, incomplete or damaged, or an argument is unknown.
    """

    name: str
    home: ClassVar[str]  # where people get it
    splits: ClassVar[dict[Any, tuple[str, ...]]]  # split -> names the folder of its images may have
    counts: ClassVar[dict[str, int]] = {}  # split -> number of images, to notice half a copy
    remedy: ClassVar[str] = 'rename or remove the folder'  # of a class that is unknown
    candidates: ClassVar[tuple[str, ...]] = ()  # what data_root may hold instead of being it
    classes: Sequence[str]

    def __init__(
        self,
        data_root: str | os.PathLike | None = None,
        split: str = 'train',
        image_size: int | None = None,
        grey: bool = False,
        download: bool = False,
    ) -> None:
        check_choice(f'{type(self).__name__}: split', split, tuple(self.splits))
        if image_size is not None and image_size < 1:
            raise UsageError(
                f'image_size={image_size} of {type(self).__name__} must be 1 pixel or more, or '
                'None to keep the size of the images.'
            )
        self.split = split
        self.image_size = image_size
        self.grey = grey
        self.notes: dict[str, Any] = {}  # what files say of one another while the set is read
        self.source = self._find(Path(data_root or f'data/{self.name}').expanduser(), download)
        self.pool = self._open()
        super().__init__(
            self.pool.images,
            labels=self.pool.extra('labels'),
            metainfo={'name': self.name, 'classes': self.pool.meta['classes']},
        )

    # --- what a set may say for itself ----------------------------------------------------------

    def markers(self) -> list[str]:
        """Returns files or folders of which any one shows that ``data_root`` is the set itself."""
        return [*self.splits[self.split]]

    def read(self, file: File) -> Part | None:
        """Reads a file that is no image: images packed in it, or a note for :meth:`resolve`."""
        return None

    def label(self, file: File) -> str | None:
        """Returns the class of an image file by name, or None where it is of another split."""
        folders = file.name.split('/')
        is_ours = len(folders) > 2 and folders[-3] in self.splits[self.split]
        return folders[-2] if is_ours else None

    def resolve(self, names: list[str], labels: Sequence[int | str | None]) -> list[int]:
        """Turns classes given by name into numbers, once all files are read.

        Args:
            names: Names of the N images.
            labels: Class numbers from :meth:`read` and class names from :meth:`label`; None for
                an image to leave out after all.

        Returns:
            N class numbers, -1 for what is left out.
        """
        numbers: dict[int | str | None, int] = {name: k for k, name in enumerate(self.classes)}
        numbers |= {k: k for k in range(len(self.classes))} | {None: -1}
        for name, label in zip(names, labels, strict=True):
            if label not in numbers:
                raise UsageError(
                    f'{self.source}: {name} is of class {label!r}, which {self.name} does not '
                    f'have. Its classes are {shorten(self.classes)}; {self.remedy}.'
                )
        return [numbers[label] for label in labels]

    def downloads(self) -> list[Download]:
        """Returns the files to fetch for this split."""
        return []

    def recipe(self) -> dict[str, Any]:
        """Returns further arguments that decide what is in the cache, in JSON types."""
        return {}

    def expected(self, data_root: Path) -> str:
        """Says what is wrong with a folder in which the set was not found, and the remedy."""
        state = 'holds none of these' if data_root.exists() else 'does not exist'
        looked = ', '.join(dict.fromkeys([*self.candidates, *self.markers()]))
        offer = ', or pass download=True' if self.downloads() else ''
        return (
            f'{state}; expected the archive itself or a folder with {looked}. Get it from '
            f'{self.home}{offer}'
        )

    # --- find, pack, open -----------------------------------------------------------------------

    def _find(self, data_root: Path, download: bool) -> Path:
        source = self._look(data_root)
        if download:
            files = self.downloads()
            folder = source if source is not None and self._is_set(source) else None
            if folder is None or _is_begun(folder, files):
                for file in files:
                    fetch(file, folder or data_root)
                source = self._look(data_root)
        if source is None:
            raise UsageError(
                f"{type(self).__name__}: data_root='{data_root}' {self.expected(data_root)}."
            )
        return source

    def _look(self, data_root: Path) -> Path | None:
        if data_root.is_file():
            return data_root
        found = [data_root / name for name in self.candidates if (data_root / name).exists()]
        found += [data_root] if self._is_set(data_root) else []
        return next(filter(self._is_set, found), found[0] if found else None)

    def _is_set(self, path: Path) -> bool:
        """Tells an archive and what holds a marker from a folder without one."""
        return path.is_file() or any((path / name).exists() for name in self.markers())

    def _open(self) -> ImagePool:
        recipe = {
            'reader': [type(self).__name__, _READER_VERSION],
            'source': [str(self.source.resolve()), stamp(self.source)],
            'split': self.split,
            'image_size': self.image_size,
            'grey': self.grey,
            **self.recipe(),
        }
        key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
        root = cache_dir() / 'datasets' / f'{self.name}-{self.split or "all"}-{key}'
        if not is_pool(root):
            self._pack_once(root)
        return ImagePool(root)

    def _pack_once(self, root: Path) -> None:
        """Packs, unless another process does it while this one waits."""
        try:
            with one_at_a_time(root):
                if not is_pool(root):
                    start = time.perf_counter()
                    self._pack(root)
                    took = time.perf_counter() - start
                    print_log(f'Packed {self.source} into {root} in {took:.1f} s.', 'current')
        except OSError as error:
            if not os.access(root.parent, os.W_OK):
                raise UsageError(
                    f'The cache folder {root.parent} cannot be written ({error.strerror}). Set the '
                    'environment variable MMDFKD_CACHE_DIR to a folder that can.'
                ) from error
            raise UsageError(
                f'Packing {self.name} into the cache {root.parent} failed: {error}. Free some '
                'space there, or set MMDFKD_CACHE_DIR to another folder.'
            ) from error

    def _pack(self, root: Path) -> None:
        if self.source.is_file():
            for file in self.downloads():
                if file.md5 and file.filename == self.source.name:
                    require_md5(self.source, file.md5)
        shutil.rmtree(root, ignore_errors=True)  # a damaged cache
        names: list[str] = []
        labels: list[int | str] = []
        shape: tuple[int, ...] = ()
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryFile(dir=root.parent) as spool,
            progress_bar() as bar,
        ):
            warnings.simplefilter('ignore')  # of odd metadata; the decoding threads obey it too
            task = bar.add_task(
                f'Reading {self.name} {self.split or ""}', total=self.counts.get(self.split)
            )
            for part, rows in read_images(self):
                shape = shape or rows[0].shape
                for name, image in zip(part.names, rows, strict=True):
                    self._require_shape(name, image.shape, shape)
                    spool.write(image.data)
                names += part.names
                labels += part.labels
                bar.advance(task, len(rows))
            self._require_count(len(names))
            numbers = np.array(self.resolve(names, labels), dtype=np.int64)
            self._require_every_class(numbers[numbers >= 0])
            self.notes.clear()
            spool.flush()
            pixels = np.memmap(spool, np.uint8, 'r', shape=(len(names), *shape))
            # By name: the same order from a folder as from an archive.
            order = np.array(sorted(range(len(names)), key=names.__getitem__))
            order = order[numbers[order] >= 0]
            is_sorted = len(order) == len(names) and (np.diff(order) > 0).all()
            description = {
                'created_by': f'mmdfkd.datasets.{type(self).__name__}',
                'source': str(self.source),
                'split': self.split,
                'classes': list(self.classes),
            }
            images = pixels if is_sorted else pixels[order]
            try:
                write_pool(root, images, self.name, {'labels': numbers[order]}, description)
            except UsageError:
                if not is_pool(root):  # where it is one, another process was first: use its pool
                    raise

    def _require_shape(self, name: str, found: tuple[int, ...], first: tuple[int, ...]) -> None:
        if found != first:
            raise UsageError(
                f'{self.source}: {name} is {found[1]} x {found[0]} pixels, but images before it '
                f'are {first[1]} x {first[0]}. Give image_size to bring all to one size.'
            )

    def _require_count(self, found: int) -> None:
        expected = self.counts.get(self.split, found)
        if found != expected or not found:
            raise UsageError(
                f'{self.source} holds {found:,} images of {self.name} {self.split}, expected '
                f'{f"{expected:,}" if expected else "at least one"}. Copy or unpack it again; '
                'for a part on purpose use LabelledFolder.'
            )

    def _require_every_class(self, numbers: np.ndarray) -> None:
        count = np.bincount(numbers, minlength=len(self.classes))
        missing = [self.classes[k] for k in np.flatnonzero(count == 0).tolist()]
        if missing:
            raise UsageError(
                f'{self.source} has no image of {shorten(missing)} in split {self.split!r} '
                f'({len(missing)} of {len(self.classes)} classes). Copy or unpack it again.'
            )

    # --- for worker processes -------------------------------------------------------------------

    def _images_sha256(self) -> str:
        return self.pool.meta['sha256']

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the images out: a spawned worker maps the files anew."""
        return {**self.__dict__, 'images': None, 'device_images': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the images again."""
        self.__dict__.update(state)
        self.images = self.pool.images


def _is_begun(folder: Path, files: Sequence[Download]) -> bool:
    """Tells whether some of the files, but not all, are in a folder, gzipped or not."""
    there = [
        (folder / file.filename).exists() or (folder / file.filename.removesuffix('.gz')).exists()
        for file in files
    ]
    return any(there) and not all(there)
