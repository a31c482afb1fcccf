# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The bank: images made out of a teacher, on disk, growing while a student learns from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from . import residency
from .bank_files import BankFiles, read_bank, set_aside
from .image_pool import ImagePool, map_images
from .packed import PackedDataset

#: Facts that two makers of one bank must share.
IDENTITY = ('teacher', 'num_classes', 'mean', 'std')


@DATASETS.register_module()
class ImageBank(ImagePool):
    """Synthetic images in a folder that is an :class:`ImagePool` and grows round by round.

    Batches are those of a pool: images and their numbers, no label. ``extra('labels')`` are the
    classes the images were made for. It begins empty, whatever the folder holds: whoever writes
    calls :meth:`open` once, then :meth:`append`; everyone else sees what there is after
    :meth:`refresh`. Images stay memory-mapped, or grow on the device too, see
    :func:`~mmdfkd.datasets.residency.make_resident`.

    Args:
        root: Folder of the bank, which need not exist yet. The runner gives ``<work_dir>/bank``.
        shape: ``(C, H, W)`` of an image. The runner gives the teacher's.
        resident: Whether the images live on the training device: True, False, or 'auto' where
            they fit.
    """

    may_be_empty = True

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        shape: Sequence[int] | None = None,
        resident: bool | Literal['auto'] = 'auto',
    ) -> None:
        self.root = Path(root or 'bank').expanduser()
        self.is_placed = root is not None and shape is not None
        self.shape = tuple(shape or ())
        self.subset = None
        self.resident = resident
        self.files: BankFiles | None = None
        channels, height, width = self.shape or (1, 1, 1)
        self.meta = dict(count=0, shape=[0, height, width, channels], bank={})
        PackedDataset.__init__(self, self._read(), metainfo={'name': 'bank'})

    @property
    def rounds(self) -> int:
        """Rounds of synthesis whose images are in the bank."""
        return self.meta['bank'].get('rounds', 0)

    # Writing --------------------------------------------------------------------------------

    def open(
        self,
        facts: Mapping[str, Any],
        name: str = 'bank',
        identity: Sequence[str] = IDENTITY,
    ) -> None:
        """Open for writing: make the folder, or go on with what it holds.

        Args:
            facts: Where the images come from, JSON values; ``IDENTITY`` must be among them.
            name: Name of a new bank, shown in logs and summaries.
            identity: Which facts an existing bank must share.

        Raises:
            UsageError: An existing bank differs in one of them or in the shape of an image, is
                damaged, or is none; or a new one cannot be made.
        """
        if not self.is_placed:
            raise UsageError(
                'The ImageBank does not know its folder or the shape of an image. Give '
                'train_dataloader.dataset.root and .shape; the runner does so for methods that '
                'synthesise images.'
            )
        if not self._exists():
            channels, height, width = self.shape
            self.files = BankFiles.create(self.root, (height, width, channels), name, facts)
        else:
            known = self._read_meta()['bank']
            for key in identity:
                if known.get(key) != facts[key]:
                    what, before, now = _differing(key, known.get(key), facts[key])
                    raise UsageError(
                        f'The bank {self.root} was made with {what}={_short(before)}, this run has '
                        f'{what}={_short(now)}; images of both do not belong together. Choose '
                        'another folder for the new bank, or remove the old one.'
                    )
            self.files = BankFiles(self.root)
        self.refresh()

    def set_aside(self) -> Path | None:
        """Rename what an earlier run left in the folder; return its new path if there was any."""
        return set_aside(self.root) if self._exists() else None

    def append(self, images: Tensor, targets: Tensor) -> None:
        """Add the images of one round; they are on the disk when this returns.

        Args:
            images: uint8 ``(N, C, H, W)``, values 0 to 255.
            targets: Classes they were made for, ``(N,)``.

        Raises:
            UsageError: Images of another type or shape, or the disk is full; the bank is what it
                was.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            raise UsageError(
                f'The bank {self.root} takes uint8 images of shape {self.shape}, found '
                f'{images.dtype} of shape {tuple(images.shape[1:])}.'
            )
        assert self.files is not None, 'open() comes first'
        rows = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.files.append(rows, targets.cpu().numpy().astype('<i8'))
        self.refresh()

    def truncate(self, count: int, rounds: int, sha256: str) -> None:
        """Go back to the first ``count`` images, as a checkpoint remembers the bank.

        Args:
            count: Images to keep.
            rounds: Rounds that made them.
            sha256: Hash of these images.

        Raises:
            UsageError: The bank holds fewer, or others; it is left as it is.
        """
        assert self.files is not None, 'open() comes first'
        if count > len(self):
            raise UsageError(
                f'The checkpoint goes on with a bank of {count:,} images, {self.root} holds '
                f'{len(self):,}. Resume in the work directory of that run (--work-dir), or name '
                'its bank in train_dataloader.dataset.root.'
            )
        self.files.truncate(count, rounds, sha256)
        self.refresh()

    # Reading --------------------------------------------------------------------------------

    def refresh(self) -> None:
        """See what has been written since, by this process or another.

        Raises:
            UsageError: The folder is no bank, is damaged, or its images have another shape.
        """
        before = len(self.images)
        self.meta = self._read_meta()
        self.images = self._read()
        self._content_hash = None
        if self.device_images is not None:
            self._grow_on_device(before)

    def __getitems__(self, indices: Sequence[int] | np.ndarray | Tensor) -> dict[str, Tensor]:
        """Returns a whole batch, see :class:`PackedDataset`."""
        if len(indices) and int(np.max(np.asarray(indices))) >= len(self.images):
            self.refresh()  # in a worker process that is older than these images
        return super().__getitems__(indices)

    def to_device(self, device: torch.device | str) -> None:
        """Copies all images to ``device``; later ones follow."""
        super().to_device(device)
        self._room: Tensor | None = self.device_images

    def _grow_on_device(self, before: int) -> None:
        """Copy images from number ``before`` on, into a buffer twice as large where it is full."""
        assert self._room is not None
        count, device = len(self.images), self._room.device
        if count > len(self._room):
            if not residency.fits(self, 2 * self.images.nbytes, device):
                self.device_images = self._room = None
                return
            room = torch.empty(
                (2 * count, *self.images.shape[1:]), dtype=torch.uint8, device=device
            )
            room[:before] = self._room[:before]
            self._room = room
        self._copy_to(self._room, before)
        self.device_images = self._room[:count]

    def _exists(self) -> bool:
        """Whether the folder holds anything."""
        return self.is_placed and self.root.exists() and any(self.root.iterdir())

    def _read_meta(self) -> dict[str, Any]:
        meta = read_bank(self.root)
        found = (meta['shape'][3], *meta['shape'][1:3])
        if found != self.shape:
            raise UsageError(
                f'The bank {self.root} holds images of shape {found}, the teacher takes '
                f'{self.shape}. Choose another folder for the new bank, or remove the old one.'
            )
        return meta

    def _read(self) -> np.ndarray:
        if self.meta['count'] == 0:  # nothing can be mapped
            return np.empty(self.meta['shape'], np.uint8)
        return map_images(self.root, self.meta)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what belongs to this process."""
        return {**super().__getstate__(), 'files': None, '_room': None}


def _differing(key: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """The innermost place at which two values differ, if they are dicts, and what is there."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                return _differing(f'{key}.{name}', before.get(name), now.get(name))
    return key, before, now


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f'{text[:57]}...'
