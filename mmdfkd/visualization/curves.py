# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Curves over a training run, and of several runs in one picture (Figure 4 of KD³, ICCV 2023)."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[tuple[float, float]]
Tag = tuple[float, str, str, str]

_LEFT, _PLOT_WIDTH = 60, 668

WEIGHTS = {
    'student_weight': "student's say in the selection, a(t)",
    'weight': 'mean alignment weight',
}


def read_scalars(json_lines_path: style.PathLike) -> list[dict[str, Any]]:
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

    The epoch is a record's ``epoch``, else its ``step``, which mmengine's log of a validation
    counts in epochs. Of several values in one epoch, as after a resumed run, the last one counts.
    """
    points = {
        float(record.get('epoch', record.get('step', 0))): float(record[key])
        for record in records
        if isinstance(record.get(key), (int, float))
    }
    return sorted(points.items())


def plot_history(
    path: style.PathLike,
    records: Sequence[Mapping[str, Any]],
    teacher_accuracy: float | None = None,
    accuracy: str = 'accuracy/top1',
    selected: str = 'selected_share',
    weights: Mapping[str, str] = WEIGHTS,
    title: str = 'How the student grew, epoch by epoch',
) -> Path:
    """Draws a run over its epochs: accuracy, selected share of the pool, weights in [0, 1].

    Panels whose keys occur in no record are left out.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        records: Scalars by key with an ``epoch`` or ``step`` each, see :func:`read_scalars`.
        teacher_accuracy: The teacher's accuracy in percent, drawn as a horizontal line.
        accuracy: Key of the student's accuracy in percent.
        selected: Key of the share of the pool that was selected, in [0, 1].
        weights: Description by key of the weights in [0, 1] that share the third panel.
        title: Heading of the figure.

    Returns:
        The path written.

    Raises:
        UsageError: If none of the keys occurs, or the file cannot be written.
    """
    student = curve_of(records, accuracy)
    share = [(epoch, 100 * value) for epoch, value in curve_of(records, selected)]
    said = {text: curve_of(records, key) for key, text in weights.items()}
    said = {text: points for text, points in said.items() if points}
    panels = [panel for panel, points in enumerate((student, share, said)) if points]
    if not panels:
        found = sorted({key for record in records for key in record})
        raise UsageError(
            f'records: none holds "{accuracy}", "{selected}" or one of {sorted(weights)}; '
            f'found the keys {found}. Name the keys to draw with accuracy=, selected=, weights='
        )

    heights = (240, 130, 130)
    gap, top = 52, 112
    total = top + sum(heights[panel] + gap for panel in panels) + 10
    with style.canvas(path, style.WIDTH, total) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, 'The numbers at the right are those of the last epoch.')
        every = [*student, *share, *(point for points in said.values() for point in points)]
        epochs = [epoch for epoch, _ in every]
        for panel in panels:
            axes = style.axes_at(figure, _LEFT, top, _PLOT_WIDTH, heights[panel])
            prepare_axes(axes, min(epochs), max(epochs))
            if panel == 0:
                style.write(page, 20, top - 14, 'Accuracy on unseen test images, in percent', 13)
                tags = [draw_curve(axes, student, style.BLUE, 'student')]
                if teacher_accuracy is not None:
                    tags.append(_draw_teacher(axes, teacher_accuracy))
            elif panel == 1:
                style.write(page, 20, top - 14, 'Share of the pool selected, in percent', 13)
                axes.set_ylim(0, 100)
                tags = [draw_curve(axes, share, style.GREEN, 'selected')]
            else:
                style.write(page, 20, top - 14, 'Weights, from 0 to 1', 13)
                axes.set_ylim(0, 1)
                tags = [
                    draw_curve(axes, points, colour, text, '.2f')
                    for (text, points), colour in zip(
                        said.items(), (style.PURPLE, style.ORANGE, *style.CYCLE), strict=False
                    )
                ]
            label_right(axes, tags, heights[panel])
            if panel == panels[-1]:
                axes.set_xlabel('epoch', fontsize=12)
            else:
                axes.tick_params(labelbottom=False)
            top += heights[panel] + gap
    return Path(path)


def plot_sweep(
    path: style.PathLike,
    curves: Mapping[str, Curve],
    teacher_accuracy: float | None = None,
    title: str = 'One run per setting',
    y_label: str = 'accuracy on unseen test images, in percent',
) -> Path:
    """Draws one curve per run, each labelled at its end with its last value.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        curves: (epoch, value) pairs by name of the run, in the order of the colours.
        teacher_accuracy: Drawn as a horizontal line, in the unit of the values.
        title: Heading of the figure.
        y_label: What the values are, with their unit.

    Returns:
        The path written.

    Raises:
        UsageError: If there is no curve or one is empty, or the file cannot be written.
    """
    empty = [name for name, points in curves.items() if len(points) == 0]
    if empty or not curves:
        raise UsageError(
            f'curves: found {len(curves)} runs, of which {empty} hold no points; expected one '
            '(epoch, value) pair or more for each'
        )
    if any(len(point) != 2 for points in curves.values() for point in points):
        raise UsageError('curves: expected (epoch, value) pairs in each run')
    lines = ('-', (0, (4, 2)), (0, (1, 1.5)))
    height = max(376, sum(_tag_height(name) for name in curves) + _tag_height('teacher'))
    with style.canvas(path, style.WIDTH, 82 + height + 62) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, f'{y_label}; the numbers are those of the last epoch')
        axes = style.axes_at(figure, _LEFT, 82, _PLOT_WIDTH, height)
        epochs = [epoch for points in curves.values() for epoch, _ in points]
        first, last = min(epochs), max(epochs)
        prepare_axes(axes, first, last)
        axes.set_xlabel('epoch', fontsize=12)
        tags = []
        for number, (name, points) in enumerate(curves.items()):
            turn, colour = divmod(number, len(style.CYCLE))
            line = lines[turn % len(lines)]
            tags.append(draw_curve(axes, points, style.CYCLE[colour], name, line=line))
        if teacher_accuracy is not None:
            tags.append(_draw_teacher(axes, teacher_accuracy))
        # The climb of the first quarter is cut off, so that the ends can be told apart.
        settled = [
            value
            for points in curves.values()
            for epoch, value in points
            if epoch >= first + (last - first) / 4 and np.isfinite(value)
        ]
        low, high = axes.get_ylim()
        low = min(settled, default=low)
        axes.set_ylim(low - 0.05 * (high - low), high)
        label_right(axes, tags, height)
    return Path(path)


def prepare_axes(axes: Axes, first: float, last: float) -> None:
    """Gives axes over epochs the look of all: a grid, few ticks, no frame."""
    from matplotlib.ticker import MaxNLocator

    margin = 0.015 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis='y', color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines['left'].set_visible(False)
    axes.tick_params(length=0, labelsize=12)


def draw_curve(
    axes: Axes,
    points: Curve,
    colour: str,
    name: str,
    precision: str = '.1f',
    line: Any = '-',
) -> Tag:
    """Draws a curve; returns its tag: height, last value, name and colour of the text."""
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=colour, linestyle=line)
    axes.plot(epochs[-1], values[-1], 'o', color=colour, markersize=6, clip_on=False)
    return values[-1], f'{values[-1]:{precision}}', name, style.darker(colour)


def _draw_teacher(axes: Axes, accuracy: float) -> Tag:
    axes.axhline(accuracy, color=style.INK, linestyle=(0, (5, 3)), linewidth=1.5)
    return accuracy, f'{accuracy:.1f}', 'teacher', style.INK


def _tag_lines(name: str) -> list[str]:
    return textwrap.wrap(name, 22) or ['']


def _tag_height(name: str) -> int:
    return 15 * len(_tag_lines(name)) + 6


def label_right(axes: Axes, tags: Sequence[Tag], height: float) -> None:
    """Writes tags right of axes ``height`` high, at their values but never on top of each other."""
    low, high = axes.get_ylim()
    tags = sorted(tags, key=lambda tag: -tag[0])
    sizes = [_tag_height(name) for _, _, name, _ in tags]
    tops = [
        height * (high - (value if np.isfinite(value) else low)) / (high - low) - size / 2
        for (value, _, _, _), size in zip(tags, sizes, strict=True)
    ]
    for index in range(1, len(tags)):
        tops[index] = max(tops[index], tops[index - 1] + sizes[index - 1])
    tops[-1] = min(tops[-1], height + 8 - sizes[-1])
    for index in range(len(tags) - 2, -1, -1):
        tops[index] = min(tops[index], tops[index + 1] - sizes[index])
    for (_, value, name, colour), top in zip(tags, tops, strict=True):
        wrapped = '\n'.join(_tag_lines(name))
        for offset, text, weight in ((10, value, 'bold'), (50, wrapped, 'normal')):
            axes.text(
                1 + offset / _PLOT_WIDTH,
                1 - (top + 3) / height,
                text,
                transform=axes.transAxes,
                color=colour,
                fontsize=12.5,
                fontweight=weight,
                verticalalignment='top',
            )
