# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a training run left in its work directory.

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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from ..utils import UsageError
from .style import PathLike

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmdfkd.datasets import PackedDataset


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


def read_scalars(json_lines_path: PathLike) -> list[dict[str, Any]]:
    """Reads the ``scalars.json`` of mmengine's ``LocalVisBackend``: one JSON object a line.

    A last line without its newline was cut off by a killed run and is left out.

    Args:
        json_lines_path: The file, usually ``<work_dir>/<timestamp>/vis_data/scalars.json``.

    Returns:
        The records in the order they were written.

    Raises:
        UsageError: If the file cannot be read or a line is not a JSON object.
    """
    path = Path(json_lines_path)
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f'cannot read the scalars "{path}" ({error}): give the vis_data/scalars.json of a run'
        ) from error
    records = []
    lines = text.split('\n')
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number < len(lines):
            raise UsageError(
                f'"{path}", line {number}: found {line[:60]!r}, expected one JSON object a line; '
                'give the vis_data/scalars.json of a run'
            )
    return records


def curve_of(records: Iterable[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Returns the (epoch, value) pairs of a key in the order of epochs.

    Where a record counts something else, see :func:`place_of`, that takes the place of the epoch.
    Of several values in one epoch, as after a resumed run, the last one counts.
    """
    points = {
        place_of(record)[1]: float(record[key])
        for record in records
        if isinstance(record.get(key), (int, float))
    }
    return sorted(points.items())


def place_of(record: Mapping[str, Any]) -> tuple[str, float]:
    """Returns what a record counts, and how far: ``('epoch', 3)``.

    A round of synthesis has a ``round``. Else it is the ``epoch``; without one the ``iter``; and
    without either the ``step``, which mmengine's log of a validation counts in epochs.
    """
    for key, unit in (('round', 'round'), ('epoch', 'epoch'), ('iter', 'iteration')):
        if key in record:
            return unit, float(record[key])
    return 'epoch', float(record.get('step', 0))


def unit_of(records: Iterable[Mapping[str, Any]], key: str) -> str:
    """Returns what the records of a key count: ``epoch``, ``iteration`` or ``round``."""
    found = (place_of(record)[0] for record in records if key in record)
    return next(found, 'epoch')


def read_history(work_dir: PathLike) -> list[dict[str, Any]]:
    """Reads the scalars of a run, of all its starts in order.

    What a start repeats from an epoch on replaces what earlier ones recorded from there; rounds of
    synthesis likewise, by themselves. Records of a run that counts iterations have an ``iter``.

    Raises:
        UsageError: The folder holds no run.
    """
    placed: list[tuple[str, tuple[float, bool], dict[str, Any]]] = []
    for path in _starts(work_dir, 'scalars.json'):
        by_iteration = _counts_iterations(path.with_name('config.py'))
        new = [_placed(record, by_iteration) for record in read_scalars(path)]
        first: dict[str, tuple[float, bool]] = {}
        for unit, place, _ in new:
            first[unit] = min(place, first.get(unit, place))
        placed = [old for old in placed if old[0] not in first or old[1] < first[old[0]]] + new
    return [record for _, _, record in placed]


def _placed(
    record: dict[str, Any], by_iteration: bool
) -> tuple[str, tuple[float, bool], dict[str, Any]]:
    """A record behind what it counts and how far; a validation follows what was trained till then.

    So a resumed run that makes up for a missing one replaces nothing of its epoch.
    """
    is_validation = 'epoch' not in record
    record = _by_iteration(record) if by_iteration else record
    unit, number = place_of(record)
    return unit, (number, is_validation), record


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
