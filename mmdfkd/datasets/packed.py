# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Images packed in one array, read a whole batch at a time."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .row_view import RowView

_CHUNK_ROWS = 4096


def array_sha256(array: np.ndarray | RowView) -> str:
    """Returns the hex sha256 of an array's bytes in C order, whatever its strides."""
    digest = hashlib.sha256()
    for first in range(0, len(array), _CHUNK_ROWS):
        digest.update(np.ascontiguousarray(array[first : first + _CHUNK_ROWS]).data.cast('B'))
    return digest.hexdigest()


def none_of_ours(place: str, dataset: object) -> UsageError:
    """The error for a dataset that has another form.

    Args:
        place: Where it is in the config.
        dataset: What is there.
    """
    return UsageError(
        f'{place} is a {type(dataset).__name__}, which is none of mmdfkd.datasets. Derive it from '
        'PackedDataset, or pack its images into a pool.'
    )


@DATASETS.register_module()
class PackedDataset(Dataset):
    """All images in one uint8 array; a batch is one gather, with no Python per image.

    PyTorch's loader hands the indices of a whole batch to ``__getitems__``; use
    ``collate_fn=dict(type='whole_batch_collate')``, which passes the batch on untouched.

    Args:
        images: uint8 array, memory map or view of rows, of shape (N, H, W, C), values 0 to 255.
        labels: N class numbers, or None for an unlabelled set, whose batches then have no
            ``label``.
        metainfo: ``dict(name=str, classes=tuple of names or None)``; missing keys are filled in.

    Attributes:
        resident: Whether training may keep the images on its device, see
            :func:`~mmdfkd.datasets.residency.make_resident`.
        may_be_empty: Whether a set of this class may hold no image yet.

    Raises:
        UsageError: The images are not uint8 (N, H, W, C), or the labels do not fit them.
    """

    resident: bool | Literal['auto'] = 'auto'
    may_be_empty: bool = False

    def __init__(
        self,
        images: np.ndarray | RowView,
        labels: Sequence[int] | np.ndarray | None = None,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        info: dict[str, Any] = {'name': 'packed', 'classes': None, **(metainfo or {})}
        if info['classes'] is not None:
            info['classes'] = tuple(info['classes'])
        if not hasattr(images, 'ndim'):
            raise UsageError(
                f"The images of '{info['name']}' are a {type(images).__name__}. Give one array of "
                'them all, uint8 of shape (N, H, W, C): np.stack(images).'
            )
        sizes = images.shape[1:] if self.may_be_empty else images.shape
        if images.ndim != 4 or images.dtype != np.uint8 or 0 in sizes:
            raise UsageError(
                f"The images of '{info['name']}' are {images.dtype} of shape {images.shape}, but "
                'uint8 of shape (N, H, W, C) with at least one image is expected. Convert them, '
                'for grey images with a last axis of length 1.'
            )
        if isinstance(images, np.memmap):  # indexing one costs more than indexing its base class
            images = images.view(np.ndarray)
        self.images: np.ndarray | RowView = images
        self.device_images: Tensor | None = None
        self.labels = None if labels is None else _checked_labels(labels, len(images), info)
        self.metainfo = info
        self._content_hash: str | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns one sample: ``inputs`` (C, H, W) uint8, ``index`` and perhaps ``label``."""
        batch = self.__getitems__([range(len(self))[index]])
        return {key: value[0] for key, value in batch.items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray | Tensor) -> dict[str, Tensor]:
        """Returns a whole batch.

        Args:
            indices: B positions in [0, N).

        Returns:
            ``inputs`` uint8 (B, C, H, W), laid out channels-last in memory, on the device of
            :meth:`to_device` or else the CPU; ``index`` int64 (B,); ``label`` int64 (B,) where
            the set is labelled. All are copies: writing to them never reaches the set.
        """
        positions = np.asarray(indices, dtype=np.int64).copy()
        index = torch.from_numpy(positions)
        if self.device_images is None:
            rows = torch.from_numpy(self._gather(self.images, positions))
        else:
            there = index.to(self.device_images.device, non_blocking=True)
            rows = self.device_images.index_select(0, there)
        batch = {'inputs': rows.permute(0, 3, 1, 2), 'index': index}
        if self.labels is not None:
            batch['label'] = torch.from_numpy(self._gather(self.labels, positions))
        return batch

    def to_device(self, device: torch.device | str) -> None:
        """Copies all images to ``device``; from now on batches are gathered there.

        Such a set cannot be used in worker processes, and its batches cannot be pinned.
        """
        resident = torch.empty(self.images.shape, dtype=torch.uint8, device=device)
        self._copy_to(resident)
        self.device_images = resident

    def _copy_to(self, resident: Tensor, begin: int = 0) -> None:
        """Copies the images from number ``begin`` on to their places in a tensor."""
        for first in range(begin, len(self.images), _CHUNK_ROWS):
            rows = np.array(self.images[first : first + _CHUNK_ROWS])
            resident[first : first + len(rows)] = torch.from_numpy(rows)

    def __deepcopy__(self, memo: dict) -> PackedDataset:
        """A copy shares the images, which nobody writes to; mmengine copies what it builds from."""
        return copy.copy(self)

    @staticmethod
    def _gather(array: np.ndarray | RowView, positions: np.ndarray) -> np.ndarray:
        if len(positions) and 0 <= positions[0] and positions[-1] < len(array):
            is_run = positions[-1] - positions[0] == len(positions) - 1
            if is_run and (np.diff(positions) == 1).all():
                return array[positions[0] : positions[-1] + 1].copy()
        return array.take(positions, axis=0)

    @property
    def content_hash(self) -> str:
        """16 hex digits that name the images, equal for equal bytes and shape, labels aside."""
        if self._content_hash is None:
            shape = 'x'.join(map(str, self.images.shape))
            digest = hashlib.sha256(f'{self._images_sha256()}:{shape}'.encode())
            self._content_hash = digest.hexdigest()[:16]
        return self._content_hash

    def _images_sha256(self) -> str:
        return array_sha256(self.images)


def _checked_labels(
    labels: Sequence[int] | np.ndarray, count: int, info: dict[str, Any]
) -> np.ndarray:
    """Reads the class numbers of ``count`` images: int64 (count,)."""
    given = np.asarray(labels)
    given = np.array(given.tolist()) if given.dtype == object else given
    if given.dtype.kind not in 'iubf' or (given != given.astype(np.int64)).any():
        raise UsageError(
            f"The labels of '{info['name']}' are {given.dtype} and no whole numbers. Give those of "
            'the classes, counted from 0; names belong into metainfo=dict(classes=[...]).'
        )
    numbers = np.ascontiguousarray(given, dtype=np.int64)
    limit = len(info['classes']) if info['classes'] else np.iinfo(np.int64).max
    if numbers.shape != (count,) or numbers.min() < 0 or numbers.max() >= limit:
        span = f'in [0, {limit})' if info['classes'] else 'from 0 on'
        raise UsageError(
            f"The labels of '{info['name']}' have shape {numbers.shape} and values from "
            f'{numbers.min(initial=0)} to {numbers.max(initial=0)}, but one label {span} for each '
            f'of the {count} images is expected. Pass the labels that belong to these images and '
            'name every class.'
        )
    return numbers
