# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Figures of a training run, made from what it left in its work directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .curves import plot_history
from .gan import plot_gan
from .matrix import plot_matrix
from .pool_grid import plot_pool_grid
from .records import (
    chosen,
    read_arrays,
    read_history,
    read_selection,
    read_summary,
    run_config,
    training_images,
)
from .style import PathLike
from .tsne import Distances, plot_tsne

if TYPE_CHECKING:
    from mmdfkd.datasets import PackedDataset
    from mmdfkd.models.classifiers import Classifier


def draw_run(
    work_dir: PathLike, dataset: PackedDataset | None = None, out: PathLike | None = None
) -> list[Path]:
    """Draws what a run's records hold: ``history.png``, ``selection.png`` and others.

    The history is drawn if the run recorded accuracies or selections, the selection if the run
    selected by predictions, ``adaptation_matrix.png`` if it learned one, ``gan.png`` if it trained
    a GAN.

    Args:
        work_dir: Folder of the run.
        dataset: The pool it selected from; by default it is built from the run's config.
        out: Folder to write to; by default ``figures`` in that of the run.

    Returns:
        The files written.

    Raises:
        UsageError: The folder holds no run, its records are damaged, or nothing can be written.
    """
    folder = Path(work_dir)
    out = folder / 'figures' if out is None else Path(out)
    paths = []
    records = read_history(folder)
    if any('accuracy/top1' in record or 'selected_share' in record for record in records):
        teacher = read_summary(folder).get('teacher_accuracy')
        paths.append(plot_history(out / 'history.png', records, teacher))
    if (folder / 'selection.npz').exists():
        selection = read_selection(folder)
        if len(selection['confidence']):
            pool = dataset if dataset is not None else training_images(folder)
            paths.append(
                plot_pool_grid(
                    out / 'selection.png',
                    pool.images,
                    selection['classes'].tolist(),
                    selection['pseudo_labels'],
                    selection['confidence'],
                    chosen(selection, len(pool)),
                    selection['thresholds'] if len(selection['thresholds']) else None,
                )
            )
    if (folder / 'adaptation_matrix.npz').exists():
        record = read_arrays(folder / 'adaptation_matrix.npz')
        paths.append(
            plot_matrix(
                out / 'adaptation_matrix.png',
                record['matrix'],
                record['classes'].tolist(),
                'How the pseudo-labels are taken to be wrong',
                'The learned adaptation matrix: the probability, in %, that an image of a class is '
                'labelled so by the teacher.',
                columns='pseudo-label',
            )
        )
    if (folder / 'gan.npz').exists():
        record = read_arrays(folder / 'gan.npz')
        shares = dict(pool=record['pool'], collected=record['collected'])
        if record['earliest'].any():
            shares['generated at first'] = record['earliest']
            shares['generated in the end'] = record['latest']
        names = record['classes'].tolist()
        paths.append(plot_gan(out / 'gan.png', record['epochs'], record['scores'], names, shares))
    return paths


def draw_features(
    path: PathLike,
    work_dir: PathLike,
    original: PackedDataset,
    per_group: int = 1000,
    seed: int = 0,
) -> tuple[Path, dict[str, Distances]]:
    """Draws where selected and rejected pool images lie among original ones (KD³, Figure 3).

    Features are scaled to unit length, so distances compare directions: those of faint images are
    short, and short vectors are near to everything.

    Args:
        path: The PNG file to write.
        work_dir: Folder of a finished collection run.
        original: Images of the teacher's world, its training or its test images.
        per_group: Most images drawn of each group.
        seed: Seed of the draw and of the layout.

    Returns:
        The path written and the distances of each group, see :func:`plot_tsne`.

    Raises:
        UsageError: The folder holds no finished collection run, or the teacher is gone.
    """
    from mmdfkd.models.classifiers import build_teacher

    folder = Path(work_dir)
    selection = read_selection(folder)
    teacher = build_teacher(run_config(folder).model.teacher)
    pool = training_images(folder)
    kept = chosen(selection, len(pool))
    random = np.random.default_rng(seed)

    def features(dataset: PackedDataset, candidates: np.ndarray) -> np.ndarray:
        drawn = np.sort(random.permutation(candidates)[:per_group])
        vectors = teacher_features(teacher, dataset, drawn)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)

    groups = dict(
        original=features(original, np.arange(len(original))),
        selected=features(pool, np.flatnonzero(kept)),
        rejected=features(pool, np.flatnonzero(~kept)),
    )
    return plot_tsne(path, {name: group for name, group in groups.items() if len(group)}, seed)


def teacher_features(
    teacher: Classifier, dataset: PackedDataset, indices: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """Computes the pooled vectors (n, C) of a teacher for chosen images, un-augmented."""
    import torch

    from mmdfkd.models.data_preprocessors import BatchPreprocessor

    preprocessor = BatchPreprocessor(teacher.mean, teacher.std, input_shape=teacher.input_shape)
    parts = [np.empty((0, teacher.head.in_channels), np.float32)]
    with torch.no_grad():
        for first in range(0, len(indices), batch_size):
            batch = preprocessor(dataset.__getitems__(indices[first : first + batch_size]))
            parts.append(teacher.extract(batch['inputs']).vector.numpy())
    return np.concatenate(parts)
