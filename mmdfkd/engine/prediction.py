# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Predicting whole datasets: what selection, teacher accuracy and figures need."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info, get_world_size
from torch import Tensor, nn

from mmdfkd.models.classifiers import network_fingerprint
from mmdfkd.utils.files import atomic_path, cache_dir
from mmdfkd.utils.modes import in_mode
from mmdfkd.utils.progress import track

#: So many cached predictions are made again, and may differ by this share of the largest.
SAMPLE, TOLERANCE = 8, 1e-2


@torch.no_grad()
def predict_logits(
    network: nn.Module,
    dataset: Any,
    preprocessor: nn.Module,
    batch_size: int = 512,
    augment: bool = False,
    description: str = '',
) -> Tensor:
    """Logits of every image of a dataset, in its order.

    The network is in eval mode meanwhile. Each process predicts one contiguous part; all get all.

    Args:
        network: Maps normalised images to logits ``(B, K)``.
        dataset: A ``PackedDataset``.
        preprocessor: The ``BatchPreprocessor`` to normalise with.
        batch_size: Images per forward pass.
        augment: Draw the preprocessor's training view instead of the plain one.
        description: Shown beside a progress bar; empty for none.

    Returns:
        ``(N, K)`` float32 on the CPU.
    """
    rank, world_size = get_dist_info()
    start, stop = (len(dataset) * (rank + i) // world_size for i in (0, 1))
    starts = range(start, stop, batch_size)
    parts = []
    with in_mode(network, 'eval'):
        for first in track(starts, description) if description else starts:
            batch = dataset.__getitems__(np.arange(first, min(first + batch_size, stop)))
            images = preprocessor(batch, training=augment)['inputs']
            parts.append(network(images).float())
    logits = torch.cat(parts).cpu() if parts else torch.empty(0)
    if world_size == 1:
        return logits
    return torch.cat([part for part in all_gather_object(logits) if len(part)])


class LogitsCache:
    """Teacher logits of un-augmented datasets, computed once and kept on disk.

    A file is named by the teacher's tensors, the dataset's bytes and the normalisation. What else
    determines its content, such as the code of the teacher's forward pass, shows in its first
    predictions, which are made again and compared. Logits are kept in float32, since half precision
    would flip images that lie within 1e-3 of a threshold.

    Args:
        folder: Where files go; by default ``~/.cache/mmdfkd/logits``.
        batch_size: Images per forward pass.
    """

    def __init__(self, folder: str | os.PathLike | None = None, batch_size: int = 512) -> None:
        self.folder = Path(folder) if folder else cache_dir() / 'logits'
        self.batch_size = batch_size

    def get(self, teacher: nn.Module, dataset: Any, preprocessor: nn.Module) -> Tensor:
        """Logits ``(N, K)`` of the dataset, from the file if there is one."""
        path = self.folder / f'{self.key(teacher, dataset, preprocessor)}.npy'
        logits = self._read(path, len(dataset))
        if logits is not None and not _still_true(logits, teacher, dataset, preprocessor):
            logits = None
        if not _is_shared(logits) or logits is None:
            name = dataset.metainfo['name']
            description = f'Teacher predicts {len(dataset):,} images of {name}'
            logits = predict_logits(
                teacher, dataset, preprocessor, self.batch_size, description=description
            )
            self._write(path, logits)
        return logits

    @staticmethod
    def key(teacher: nn.Module, dataset: Any, preprocessor: Any) -> str:
        """Name of the file, 32 hex digits."""
        parts = [
            network_fingerprint(teacher),
            dataset.content_hash,
            preprocessor.mean.flatten().tolist(),
            preprocessor.std.flatten().tolist(),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @staticmethod
    def _read(path: Path, length: int) -> Tensor | None:
        try:
            logits = np.load(path)
        except (OSError, ValueError, EOFError):
            return None
        return torch.from_numpy(logits) if len(logits) == length else None

    @staticmethod
    def _write(path: Path, logits: Tensor) -> None:
        try:
            with atomic_path(path) as temporary, temporary.open('wb') as file:
                np.save(file, logits.numpy())
        except OSError:
            pass  # a cache that cannot be written is no reason to stop


def _is_shared(logits: Tensor | None) -> bool:
    """Whether all processes have the same logits: machines need not share the folder."""
    if get_world_size() == 1:
        return logits is not None
    digest = None if logits is None else hashlib.sha256(logits.numpy().data).hexdigest()
    found = set(all_gather_object(digest))
    return found == {digest} and digest is not None


@torch.no_grad()
def _still_true(logits: Tensor, teacher: nn.Module, dataset: Any, preprocessor: nn.Module) -> bool:
    """Whether a teacher still predicts the first of these logits, on whatever device."""
    images = preprocessor(dataset.__getitems__(range(min(SAMPLE, len(dataset)))))['inputs']
    with in_mode(teacher, 'eval'):
        found = teacher(images).float().cpu()
    expected = logits[:SAMPLE]
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
