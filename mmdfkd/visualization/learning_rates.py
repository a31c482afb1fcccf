# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What schedules do to learning rates over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils import UsageError
from . import style
from .curves import LEFT, PLOT_WIDTH, Curve, draw_curve, label_right, prepare_axes
from .sweep import prefers_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADINGS = {'lr': 'Learning rate'}
_HEIGHT, _GAP = 260, 76  # page pixels of a panel, and below it
_FEW, _TICK = 12, 18  # values that become ticks; page pixels that a tick takes


def plot_schedules(
    path: style.PathLike,
    courses: Mapping[str, Mapping[str, Curve]],
    unit: str = 'epoch',
    title: str = 'What the schedules will do',
    note: str = '',
) -> Path:
    """Draws the values of optimisers over a run, a panel for each parameter.

    Those that coincide are one line with all their names. The axis is logarithmic where values are
    few and that spreads them more evenly, as it does those that fall in steps.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        courses: (done, value) pairs by name of the line, by parameter such as ``lr``: how much is
            done when a value is used first. The last pair is the end of the run.
        unit: What is counted: ``epoch`` or ``iteration``.
        title: Heading of the figure.
        note: Lines under the heading.

    Returns:
        The path written.

    Raises:
        UsageError: There is nothing to draw, or the file cannot be written.
    """
    if not all(map(len, courses.values())) or not courses:
        raise UsageError('courses: found a parameter without lines; expected one or more for each')
    note = '\n'.join([*filter(None, [note]), 'The numbers at the right are those at the end.'])
    top = 92 + 17.5 * (1 + note.count('\n'))
    with style.canvas(path, style.WIDTH, round(top) + len(courses) * (_HEIGHT + _GAP)) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        for key, lines in courses.items():
            values = {value for course in lines.values() for _, value in course}
            is_log = len(values) <= _FEW and min(values) > 0 and prefers_log(values)
            heading = HEADINGS.get(key, key.capitalize()) + ' (logarithmic)' * is_log
            style.write(page, 20, top - 14, heading, 13)
            axes = style.axes_at(figure, LEFT, top, PLOT_WIDTH, _HEIGHT)
            prepare_axes(axes, 0, max(course[-1][0] for course in lines.values()))
            _set_values(axes, values, is_log)
            tags = []
            for number, (name, course) in enumerate(_together(lines).items()):
                colour, line = style.look(number)
                stairs = _stairs(course, is_log)
                tag = draw_curve(axes, stairs, colour, name, line=line)
                tags.append(tag._replace(value=f'{course[-1][1]:.3g}'))
            label_right(axes, tags, _HEIGHT)
            axes.set_xlabel(f'{unit}s done', fontsize=12)
            top += _HEIGHT + _GAP
    return Path(path)


def _together(lines: Mapping[str, Curve]) -> dict[str, Curve]:
    """Lines by name; those that coincide have one."""
    names: dict[tuple, list[str]] = {}
    for name, course in lines.items():
        names.setdefault(tuple(course), []).append(name)
    return {', '.join(each): course for course, each in names.items()}


def _stairs(course: Curve, is_log: bool) -> Curve:
    """The corners of a line that keeps each value until the next one; logarithms of values."""
    place = math.log10 if is_log else float
    ends = [(done, place(value)) for (done, _), (_, value) in zip(course[1:], course, strict=False)]
    starts = [(done, place(value)) for done, value in course[:-1]]
    return [corner for pair in zip(starts, ends, strict=True) for corner in pair]


def _set_values(axes: Axes, values: set[float], is_log: bool) -> None:
    """Sets ends and ticks of the axis of values: at the values themselves where they are few."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = min(values), max(values)
    if is_log:
        places = {math.log10(tick): tick for tick in sorted(values)}
        low, high = math.log10(low), math.log10(high)
    else:
        is_narrow = 0 < high - low < low / 2  # as those of a momentum: zero is far
        low, high = (low, high) if is_narrow else (min(0, low), max(0, high))
        places = {tick: tick for tick in sorted({low, *values})} if len(values) <= _FEW else {}
    margin = 0.07 * (high - low) or 1
    axes.set_ylim(low - margin, high + margin)
    apart = _TICK * (high - low + 2 * margin) / _HEIGHT
    shown: list[float] = []
    for place in places:
        if not shown or place - shown[-1] >= apart:
            shown.append(place)
    if shown:
        axes.set_yticks(shown, [f'{places[place]:g}' for place in shown])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
