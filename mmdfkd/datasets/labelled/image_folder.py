# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Any labelled images that lie in one folder per class."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError
from mmdfkd.utils.errors import shorten

from .archive import File
from .base import LabelledSet
from .reader import Part

_SPLITS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
_SPLIT_OF = {folder: split for split, folders in _SPLITS.items() for folder in folders}


@DATASETS.register_module()
class LabelledFolder(LabelledSet):
    """Images in ``<class>/`` or ``<split>/<class>/``, below a folder or inside a tar or zip.

    Classes are numbered in the order of their names as text, like torchvision's ImageFolder;
    but by value where all names are whole numbers, so that folder ``10`` is label 10 if ``0``
    to ``9`` exist. A teacher trained with another order needs ``classes``. The log says how many
    files are left out, because they lie in no class's folder or their suffix is not of an image.

    Args:
        data_root: The folder or archive.
        split: 'train', 'val' or 'test' for images in ``<split>/<class>/`` (``valid``,
            ``validation``, ``training`` and ``testing`` count too); None for ``<class>/``.
        image_size: As in :class:`LabelledSet`, like the argument below.
        grey: Grey images.
        classes: Folder names in label order, at least those of all folders that hold images.
        name: Name shown in logs and summaries; by default that of ``data_root``.

    Raises:
        UsageError: Additionally, where a class of another split is missing from this one or the
            folder of a class is without images, which would shift all labels.
    """

    remedy = 'correct its classes=[...], or rename or remove the folder'
    splits = {**_SPLITS, None: ()}

    def __init__(
        self,
        data_root: str | os.PathLike,
        split: str | None = None,
        image_size: int | None = None,
        grey: bool = False,
        classes: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(classes, str):
            raise UsageError(
                f"LabelledFolder: classes={classes!r} is text; give a list of names, ['a', 'b']."
            )
        self.name = name or Path(data_root).name.split('.')[0] or 'folder'
        self.left_out: Counter[str] = Counter()  # files, by the reason
        self.given = None if classes is None else [str(label) for label in classes]
        super().__init__(data_root, split, image_size, grey)  # type: ignore[arg-type]

    def markers(self) -> list[str]:
        """The folders of the split; without one, any folder will do."""
        return super().markers() or ['.']

    @property
    def place(self) -> str:
        """Where images are."""
        return f'{self.split}/<class>/' if self.split else '<class>/'

    def expected(self, data_root: Path) -> str:
        """See :class:`LabelledSet`."""
        folders = ' or '.join(self.splits[self.split])
        state = f'holds no folder {folders}' if data_root.exists() else 'does not exist'
        return (
            f'{state}. Expected are images in {self.place}, one folder per class, in it or in an '
            'archive'
        )

    def _require_count(self, found: int) -> None:
        if not found:
            raise UsageError(
                f'LabelledFolder: {self.source} holds no image in {self.place}. Put the images '
                'of each class into a folder of its name.'
            )

    def recipe(self) -> dict[str, Any]:
        """The classes as given."""
        return {'classes': self.given}

    def read(self, file: File) -> Part | None:
        """Counts the file among those left out, unless it is of another split."""
        folders = file.name.split('/')[:-1]
        splits = [_SPLIT_OF[name] for name in folders if name in _SPLIT_OF]
        if self.split is None or splits[:1] == [self.split]:
            self.left_out[os.path.splitext(file.name)[1].lower() or 'without a suffix'] += 1
        return None

    def label(self, file: File) -> str | None:
        """Returns the folders between the top, or the split's folder, and the image."""
        folders = file.name.split('/')[:-1]
        if self.split is None:
            self.left_out['outside a class folder'] += not folders
            return '/'.join(folders) or None
        place = next((k for k, name in enumerate(folders) if name in _SPLIT_OF), len(folders))
        split = _SPLIT_OF[folders[place]] if place < len(folders) else self.split
        if len(folders) < place + 2:
            self.left_out['outside a class folder'] += split == self.split
            return None
        label = folders[place + 1]
        self.notes.setdefault(split, set()).add(label)
        return label if split == self.split else None

    def resolve(self, names: list[str], labels: Sequence[int | str | None]) -> list[int]:
        """Finds the classes, unless they are given."""
        folders = [str(label).split('/') for label in labels]
        if self.source.is_file() and self.split is None:
            # An archive often has one folder at its top that is no class; images right in it are
            # outside of any.
            above = _level_of_classes(folders, set(self.given or ()))
            folders = [path[above:] for path in folders]
            self.left_out['outside a class folder'] += folders.count([])
        found = {path[0] for path in folders if path}
        if self.split is None and found <= set(_SPLIT_OF):
            raise UsageError(
                f'{self.source} holds the folders {shorten(sorted(found))}, which are splits '
                f'rather than classes. Choose one by split={_SPLIT_OF[min(found)]!r}.'
            )
        everywhere = found.union(*self.notes.values())
        if self.given is None and found < everywhere:
            raise UsageError(
                f'{self.source}: the classes {shorten(sorted(everywhere - found))} of other '
                f'splits have no image in split {self.split!r}, so that labels would not agree. '
                'Copy these folders too, or fix the label order by classes=[...].'
            )
        if self.given is None:
            self._require_no_empty_folder(found)
        if self.left_out.total():
            reasons = ', '.join(f'{n:,} {reason}' for reason, n in (+self.left_out).most_common(8))
            text = f'{self.source}: {self.left_out.total():,} files left out: {reasons}'
            print_log(text, 'current', logging.WARNING)
        self.classes = self.given or _in_order(found)
        return super().resolve(names, [path[0] if path else None for path in folders])

    def _require_no_empty_folder(self, found: set[str]) -> None:
        tops = [self.source / name for name in self.splits[self.split]] or [self.source]
        folders = [entry for top in tops if top.is_dir() for entry in top.iterdir()]
        names = {entry.name for entry in folders if entry.is_dir() and entry.name[0] != '.'}
        empty = sorted(names - found - {'__MACOSX'})
        if empty:
            raise UsageError(
                f'{self.source}: the folders {shorten(empty)} hold no image that can be read, so '
                'that labels would shift. Fill or remove them, or fix the label order by '
                'classes=[...].'
            )

    def _require_every_class(self, numbers: np.ndarray) -> None:
        """Given classes may be without images, found ones cannot."""


def _level_of_classes(folders: list[list[str]], given: set[str]) -> int:
    """Counts the folders above those of the classes: where there are several, or given ones.

    A class that is the only one may have folders of its own.
    """
    levels: list[set[str]] = []
    while not levels or len(levels[-1]) == 1:
        levels.append({path[len(levels)] for path in folders if len(path) > len(levels)})
    last = len(levels) - 1
    for level in (last, *range(last)):
        if levels[level] and levels[level] <= given:
            return level
    return last if levels[last] else min(map(len, folders)) - 1


def _in_order(names: set[str]) -> list[str]:
    are_numbers = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if are_numbers else sorted(names)
