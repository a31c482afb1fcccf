# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Figures of a training run, made from what it left in its work directory.

==========================  ==============================================================
file                        written by
==========================  ==============================================================
``selection.npz``           ``SelectionHook``, when a collection run ends
``adaptation_matrix.npz``   ``FigureHook``: what an algorithm's ``records()`` returns, by name
``gan.npz``                 ``GANHook``, when a run with a GAN ends
``scalars.json``            mmengine's ``LocalVisBackend``, one per start of the run
``config.py``               likewise: the resolved config
``summary.json``            ``SummaryHook``
==========================  ==============================================================
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from ..utils import UsageError
from .curves import place_of, plot_history, read_scalars
from .gan import plot_gan
from .matrix import plot_matrix
from .pool_grid import plot_pool_grid
from .style import PathLike
from .tsne import Distances, plot_tsne

if TYPE_CHECKING:
    from mmengine.config import Config

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
    from mmdfkd.models.algorithms.base import build_teacher

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


# What a run left behind -----------------------------------------------------------------------


def read_selection(work_dir: PathLike) -> dict[str, np.ndarray]:
    """Reads the last selection of a run: the fields of a ``Selection``, and ``classes``.

    Raises:
        UsageError: There is none, or it is damaged.
    """
    return read_arrays(Path(work_dir, 'selection.npz'), ' with a selector (model.selector)')


def read_arrays(path: Path, kind: str = '') -> dict[str, np.ndarray]:
    """Reads the arrays of a record.

    Args:
        path: An ``.npz`` file in the folder of a run.
        kind: What kind of run leaves it, for the message.

    Raises:
        UsageError: There is none, or it is damaged.
    """
    try:
        with np.load(path) as content:
            return dict(content)
    except (OSError, ValueError, BadZipFile) as error:
        raise UsageError(
            f'cannot read {path} ({error}): give the work directory of a finished run{kind}'
        ) from error


def chosen(selection: dict[str, np.ndarray], pool_size: int) -> np.ndarray:
    """Marks the selected images of a pool, (pool_size,) booleans.

    Raises:
        UsageError: The selection was made from a pool of another size.
    """
    indices = selection['indices']
    known = max(len(selection['confidence']) or pool_size, indices.max(initial=-1) + 1)
    if known != pool_size:
        raise UsageError(
            f'the selection was made from {known:,} images, the pool now has {pool_size:,}: it has '
            'changed since the run; train again'
        )
    kept = np.zeros(pool_size, bool)
    kept[indices] = True
    return kept


def read_history(work_dir: PathLike) -> list[dict[str, Any]]:
    """Reads the scalars of a run, of all its starts in order.

    What a start repeats from an epoch on replaces what earlier ones recorded from there; rounds of
    synthesis likewise, by themselves. Records of a run that counts iterations have an ``iter``.

    Raises:
        UsageError: The folder holds no run.
    """
    records: list[dict[str, Any]] = []
    for path in _starts(work_dir, 'scalars.json'):
        new = read_scalars(path)
        if _counts_iterations(path.with_name('config.py')):
            new = [_by_iteration(record) for record in new]
        first: dict[str, float] = {}
        for unit, number in map(place_of, new):
            first[unit] = min(number, first.get(unit, number))
        places = map(place_of, records)
        kept = [number < first.get(unit, float('inf')) for unit, number in places]
        records = [record for record, keep in zip(records, kept, strict=True) if keep] + new
    return records


def _counts_iterations(config: Path) -> bool:
    """Tells whether a run has ``train_cfg = dict(max_iters=...)``; nothing of the file is run."""
    try:
        lines = ast.parse(config.read_text(encoding='utf-8')).body
    except (OSError, SyntaxError):
        return False
    loops = [
        line.value
        for line in lines
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == 'train_cfg'
    ]
    return any('max_iters' in ast.unparse(loop) for loop in loops)


def _by_iteration(record: dict[str, Any]) -> dict[str, Any]:
    """Names the iteration: for mmengine such a run is one epoch, and a validation has a step."""
    if 'epoch' in record and 'iter' not in record:  # one of our hooks means the whole run
        return record
    rest = {key: value for key, value in record.items() if key != 'epoch'}
    return {'iter': record.get('step', 0), **rest}


def read_summary(work_dir: PathLike) -> dict[str, Any]:
    """Reads ``summary.json``; empty where there is none or it is damaged."""
    try:
        return json.loads(Path(work_dir, 'summary.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}


def the_teacher(summaries: Iterable[dict[str, Any]]) -> float | None:
    """Accuracy of the teacher in percent, if it was the same in all runs."""
    found = {summary.get('teacher_accuracy') for summary in summaries}
    return found.pop() if len(found) == 1 else None


def run_config(work_dir: PathLike) -> Config:
    """Reads the resolved config of a run's last start.

    Raises:
        UsageError: The folder holds no run.
    """
    from mmdfkd.utils.config_read import load_config

    return load_config(_starts(work_dir, 'config.py')[-1])


def training_images(work_dir: PathLike) -> PackedDataset:
    """Builds the dataset a run trained on.

    Raises:
        UsageError: The folder holds no run, or the images are gone.
    """
    from mmdfkd.registry import DATASETS

    dataset = DATASETS.build(run_config(work_dir).train_dataloader.dataset)
    return getattr(dataset, 'collected', dataset)  # of a hybrid one


def _starts(work_dir: PathLike, name: str) -> list[Path]:
    """Lists a file of mmengine's record by starts of the run, whose folders are dates."""
    found = sorted(Path(work_dir).glob(f'*/vis_data/{name}'))
    if not found:
        raise UsageError(
            f'{work_dir} holds no */vis_data/{name}: give the work directory of a training run'
        )
    return found
