# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Curves over a training run, and of several runs in one picture (Figure 4 of KD³, ICCV 2023)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..utils import UsageError
from . import style
from .records import curve_of, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[tuple[float, float]]

LEFT, PLOT_WIDTH = 60, 640
_NARROW, _LINE_HEIGHT = 18, 15  # characters in the line of a tag, at least; page pixels

WEIGHTS = {
    'student_weight': "student's say in the selection, a(t)",
    'weight': 'mean alignment weight',
}


class Tag(NamedTuple):
    """What stands right of the end of a curve, at the height of its last finite value."""

    height: float
    value: str
    name: str
    colour: str
    line: Any


def plot_history(
    path: style.PathLike,
    records: Sequence[Mapping[str, Any]],
    teacher_accuracy: float | None = None,
    accuracy: str = 'accuracy/top1',
    selected: str = 'selected_share',
    weights: Mapping[str, str] = WEIGHTS,
    title: str | None = None,
) -> Path:
    """Draws a run over its epochs: accuracy, selected share of the pool, weights in [0, 1].

    Panels whose keys occur in no record are left out. A run that counts iterations is drawn over
    those.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        records: Scalars by key with an ``epoch``, ``iter`` or ``step`` each, see
            :func:`read_scalars`.
        teacher_accuracy: The teacher's accuracy in percent, drawn as a horizontal line.
        accuracy: Key of the student's accuracy in percent.
        selected: Key of the share of the pool that was selected, in [0, 1].
        weights: Description by key of the weights in [0, 1] that share the third panel.
        title: Heading of the figure; by default how the student grew, epoch by epoch.

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

    shown = next(key for key in (accuracy, selected, *weights) if curve_of(records, key))
    unit = unit_of(records, shown)
    title = title or f'How the student grew, {unit} by {unit}'
    heights = (240, 130, 130)
    gap, top = 52, 112
    total = top + sum(heights[panel] + gap for panel in panels) + 10
    with style.canvas(path, style.WIDTH, total) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, f'The numbers at the right are those of the last {unit}.')
        every = [*student, *share, *(point for points in said.values() for point in points)]
        epochs = [epoch for epoch, _ in every]
        for panel in panels:
            axes = style.axes_at(figure, LEFT, top, PLOT_WIDTH, heights[panel])
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
                axes.set_xlabel(unit, fontsize=12)
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
    unit: str = 'epoch',
) -> Path:
    """Draws one curve per run, each labelled at its end with its last value.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        curves: (epoch, value) pairs by name of the run, in the order of the colours.
        teacher_accuracy: Drawn as a horizontal line, in the unit of the values.
        title: Heading of the figure.
        y_label: What the values are, with their unit.
        unit: What is counted instead of epochs: ``iteration`` or ``round``.

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
    precision = '.1f' if _is_percentage(y_label) else '.4g'
    low, high, is_cut = _limits(curves, teacher_accuracy)
    note = f'{y_label}; the numbers are those of the last {unit}'
    note += f'\nFirst {unit}s that lie below the axis are cut off.' if is_cut else ''
    top = 100 if is_cut else 82
    height = max(376, sum(_tag_height(name, _NARROW) for name in [*curves, 'teacher']))
    with style.canvas(path, style.WIDTH, top + height + 62) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        axes = style.axes_at(figure, LEFT, top, PLOT_WIDTH, height)
        epochs = [epoch for points in curves.values() for epoch, _ in points]
        prepare_axes(axes, min(epochs), max(epochs))
        axes.set_ylim(low, high)
        axes.set_xlabel(unit, fontsize=12)
        tags = []
        for number, (name, points) in enumerate(curves.items()):
            colour, line = style.look(number)
            tags.append(draw_curve(axes, points, colour, name, precision, line))
        if teacher_accuracy is not None:
            tags.append(_draw_teacher(axes, teacher_accuracy))
        label_right(axes, tags, height)
    return Path(path)


def _is_percentage(label: str) -> bool:
    return any(word in label.lower() for word in ('percent', 'accuracy', 'agreement'))


def _limits(curves: Mapping[str, Curve], teacher: float | None) -> tuple[float, float, bool]:
    """Ends of the axis of values, and whether a value lies below it.

    The climb of each run's first quarter is cut off, so that the ends can be told apart. Where no
    run has more than four values, all are shown whole.
    """
    values, settled = [], []
    cut = 1 / 4 if max(map(len, curves.values())) > 4 else 0
    for points in curves.values():
        finite = [(epoch, value) for epoch, value in points if np.isfinite(value)]
        begin = points[0][0] + cut * (points[-1][0] - points[0][0])
        values += [value for _, value in finite]
        settled += [value for epoch, value in finite if epoch >= begin]
        settled += [value for _, value in finite[-1:]]
    if not values:
        return 0, 1 if teacher is None else 1.05 * teacher, False
    named = [] if teacher is None else [teacher]
    low, high = min([*settled, *named]), max([*values, *named])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin, min(values) < low - margin


def prepare_axes(axes: Axes, first: float, last: float) -> None:
    """Gives axes over epochs the look of all: a grid, few ticks, no frame."""
    from matplotlib.ticker import MaxNLocator

    margin = 0.015 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    style.draw_grid(axes)


def draw_curve(
    axes: Axes,
    points: Curve,
    colour: str,
    name: str,
    precision: str = '.1f',
    line: Any = '-',
) -> Tag:
    """Draws a curve, with a dot at its last finite value; returns its tag."""
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=colour, linestyle=line)
    end, height = next((p for p in reversed(points) if np.isfinite(p[1])), (epochs[-1], -np.inf))
    axes.plot(end, height, 'o', color=colour, markersize=6, clip_on=False)
    return Tag(height, f'{values[-1]:{precision}}', name, colour, line)


def _draw_teacher(axes: Axes, accuracy: float) -> Tag:
    line = (0, (5, 3))
    axes.axhline(accuracy, color=style.INK, linestyle=line, linewidth=1.5)
    return Tag(accuracy, f'{accuracy:.1f}', 'teacher', style.INK, line)


def _tag_lines(name: str, characters: int) -> list[str]:
    return textwrap.wrap(name, characters) or ['']


def _tag_height(name: str, characters: int) -> int:
    return _LINE_HEIGHT * len(_tag_lines(name, characters)) + 6


def label_right(axes: Axes, tags: Sequence[Tag], height: float) -> None:
    """Writes tags right of axes ``height`` high, at their values but never on top of each other.

    A tag begins with a piece of its line; the wider the values, the narrower the names.
    """
    from matplotlib.lines import Line2D

    if not tags:  # of a GAN whose scores are all NaN
        return
    low, high = axes.get_ylim()
    tags = sorted(tags, key=lambda tag: -tag.height)
    digits = max(5, *(len(tag.value) for tag in tags))
    characters = max(_NARROW, 27 - digits)
    sizes = [_tag_height(tag.name, characters) for tag in tags]
    tops = [
        height * (high - max(tag.height, low)) / (high - low) - 6 - _LINE_HEIGHT / 2 for tag in tags
    ]
    for index in range(1, len(tags)):
        tops[index] = max(tops[index], tops[index - 1] + sizes[index - 1])
    tops[-1] = min(tops[-1], height + 8 - sizes[-1])
    for index in range(len(tags) - 2, -1, -1):
        tops[index] = min(tops[index], tops[index + 1] - sizes[index])
    for tag, top in zip(tags, tops, strict=True):
        middle = 1 - (top + 3 + _LINE_HEIGHT / 2) / height
        sample = Line2D(
            [1 + 8 / PLOT_WIDTH, 1 + 34 / PLOT_WIDTH],
            [middle, middle],
            color=tag.colour,
            linestyle=tag.line,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.add_artist(sample)
        wrapped = '\n'.join(_tag_lines(tag.name, characters))
        for offset, text, weight in (
            (40, tag.value, 'bold'),
            (48 + 8 * digits, wrapped, 'normal'),
        ):
            axes.text(
                1 + offset / PLOT_WIDTH,
                1 - (top + 3) / height,
                text,
                transform=axes.transAxes,
                color=style.darker(tag.colour),
                fontsize=12.5,
                fontweight=weight,
                verticalalignment='top',
            )
