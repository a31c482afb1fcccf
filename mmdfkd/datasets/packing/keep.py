# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Lists of the pool images to use: ``ImagePool(keep=...)`` reads them, the pool stays whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import atomic_path, write_json


def cap_per_class(logits: np.ndarray, cap: int) -> np.ndarray:
    """Keeps of each class that a teacher sees the images it is surest of.

    Args:
        logits: Of the teacher, (N, K).
        cap: Most images per predicted class, at least 1.

    Returns:
        Ascending positions of the kept images, int64 (M,).

    Raises:
        UsageError: The cap is below 1.
    """
    if cap < 1:
        raise UsageError(f'A cap of {cap} images per class keeps nothing; give 1 or more.')
    shifted = logits - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    classes = logits.argmax(axis=1)
    order = np.lexsort((-confidence, classes))  # by class, surest first, then by position
    first = np.searchsorted(classes[order], np.arange(logits.shape[1]))
    rank = np.arange(len(order)) - first[classes[order]]
    return np.sort(order[rank < cap]).astype(np.int64)


def write_keep(path: Path, positions: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes a list, and beside it as ``.json`` how it was made; neither is overwritten.

    Args:
        path: The ``.npy`` file.
        positions: Ascending positions in the pool, int64 (M,).
        facts: What to say of it, in JSON types.

    Raises:
        UsageError: A file exists, ``path`` does not end in ``.npy``, or the list is empty.
    """
    require_free(path)
    if not len(positions):
        raise UsageError(f'{path} would keep no image at all. Loosen the rules.')
    with atomic_path(path) as temporary, temporary.open('wb') as file:
        np.save(file, positions.astype(np.int64))
    write_json(path.with_suffix('.json'), {'kept': len(positions), **facts})


def require_free(path: Path) -> None:
    """Raises a :class:`UsageError` where a list cannot be written without loss."""
    if path.suffix != '.npy':
        raise UsageError(f'{path} must end in .npy, as in keep.npy. Give another --out.')
    for file in (path, path.with_suffix('.json')):
        if file.exists():
            raise UsageError(
                f'{file} exists already and is never overwritten. Remove it, or give another --out.'
            )
