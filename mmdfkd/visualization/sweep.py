# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What settings and seeds do to the accuracy: curves over a value, and rows of dots."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: (value, accuracies of its seeds in percent), by ascending value.
Points = Sequence[tuple[float, Sequence[float]]]

_LEFT, _RIGHT, _GAP = 62, 34, 30
_TICK = 44  # page pixels that a value under the axis takes
_CHARACTERS = 54  # that fit beside a row of dots
_LINE_HEIGHT = 15  # page pixels of a line of text
_DASHED: dict = dict(color=style.INK, linestyle=(0, (5, 3)), linewidth=1.5)
_SEEDS: dict = dict(s=24, color=style.BLUE, alpha=0.5, linewidths=0, zorder=3)


class Summary(NamedTuple):
    """Accuracies of some seeds in percent, their mean, and their sample standard deviation."""

    accuracies: Sequence[float]
    mean: float
    std: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end of the band around the mean."""
        return self.mean - (self.std or 0), self.mean + (self.std or 0)


def summarise(accuracies: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (divisor n - 1); of a single number the latter is None."""
    return Summary(accuracies, mean(accuracies), stdev(accuracies) if accuracies[1:] else None)


def prefers_log(values: Iterable[float]) -> bool:
    """Tells whether values are read more easily on a logarithmic axis.

    They are where the positive ones span a decade or more and are spread more evenly on it: their
    smallest gap is a larger share of the whole. A zero gets a place of its own beside such an
    axis; a negative value rules it out.
    """
    ordered = sorted(set(values))
    positive = np.array([value for value in ordered if value > 0])
    if len(positive) < 2 or ordered[0] < 0 or positive[-1] < 10 * positive[0]:
        return False

    def evenness(places: np.ndarray) -> float:
        return float(np.diff(places).min() / np.ptp(places))

    return evenness(np.log(positive)) >= evenness(positive)


def plot_values(
    path: style.PathLike,
    panels: Mapping[str, Mapping[str, Points]],
    x_label: str,
    teacher_accuracy: float | None = None,
    title: str = 'What the value does to the accuracy',
    note: str = '',
) -> Path:
    """Draws accuracy over a value: the means as a line, in a band of one standard deviation.

    Panels share their axes. That of the values is logarithmic where ``prefers_log`` says so;
    the ticks are the values themselves. Small dots are single seeds.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        panels: Points by name of their line, by heading of the panel.
        x_label: What the values are.
        teacher_accuracy: In percent, drawn as a dashed line.
        title: Heading of the figure.
        note: A line under the heading.

    Returns:
        The path written.

    Raises:
        UsageError: If there is nothing to draw, a value has no accuracy or stands twice in a line,
            or the file cannot be written.
    """
    lines = {
        (heading, name): _checked(points, f'panels[{heading!r}][{name!r}]')
        for heading, panel in panels.items()
        for name, points in panel.items()
    }
    if not lines:
        raise UsageError('panels: found no line to draw, expected one or more')
    names = list(dict.fromkeys(name for _, name in lines))
    values = sorted({value for points in lines.values() for value in points})
    is_log = prefers_log(values)
    places = _places(values, is_log)
    limits = _limits([s for points in lines.values() for s in points.values()], teacher_accuracy)

    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    height = {1: 330, 2: 240, 3: 200}[columns]
    width = (style.WIDTH - _LEFT - _RIGHT - _GAP * (columns - 1)) / columns
    headings = {heading: _wrap(heading, int(width / 8)) for heading in panels}
    more = _LINE_HEIGHT * (max(map(len, headings.values())) - 1)  # lines of the longest heading
    pitch = height + 62 + more
    legend = 22 * len(names) if len(names) > 1 else 0
    top = 84 + legend + (24 + more if len(panels) > 1 else 0)
    with style.canvas(path, style.WIDTH, top + pitch * math.ceil(len(panels) / columns)) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        for number, name in enumerate(names if legend else ()):
            y = 86 + 22 * number
            colour, line = style.look(number)
            page.plot([20, 48], [y - 4, y - 4], color=colour, linestyle=line)
            style.write_fitting(page, 58, y, name, 12.5, style.WIDTH - 78, keep_end=True)
        for number, (heading, panel) in enumerate(panels.items()):
            row, column = divmod(number, columns)
            left, upper = _LEFT + column * (width + _GAP), top + row * pitch
            axes = style.axes_at(figure, left, upper, width, height)
            shown = _prepare(axes, places, limits, width)
            for place, text in enumerate(reversed(headings[heading] if len(panels) > 1 else [])):
                y = upper - 10 - _LINE_HEIGHT * place
                style.write_fitting(
                    page, left, y, text, 12.5, width, keep_end=True, fontweight='bold'
                )
            if teacher_accuracy is not None:
                axes.axhline(teacher_accuracy, **_DASHED)
                if number == 0:
                    shown_lines = [lines[heading, name] for name in panel]
                    _name_teacher(axes, teacher_accuracy, shown_lines)
            for name in panel:
                points = lines[heading, name]
                colour, line = style.look(names.index(name))
                _draw_line(axes, points, places, colour, line, gap=is_log and 0 in values)
                if len(names) == 1:
                    means = {value: points[value] for value in shown if value in points}
                    _write_means(axes, means, places, colour)
            if column:
                axes.tick_params(labelleft=False)
            if number + columns >= len(panels):  # the lowest of its column
                label = f'{x_label} (logarithmic)' if is_log and columns == 1 else x_label
                _write_label(axes, label, width)
    return Path(path)


def plot_settings(
    path: style.PathLike,
    rows: Mapping[str, Sequence[float]],
    teacher_accuracy: float | None = None,
    title: str = 'What each setting does to the accuracy',
    note: str = '',
) -> Path:
    """Draws a row for each setting: the mean in a bar of one standard deviation, seeds as dots.

    Long names are broken into lines.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        rows: Accuracies of the seeds in percent by name of the setting, from top to bottom.
        teacher_accuracy: In percent, drawn as a dashed line.
        title: Heading of the figure.
        note: A line under the heading.

    Returns:
        The path written.

    Raises:
        UsageError: If there is no row, a row has no accuracy, or the file cannot be written.
    """
    summaries = _checked(rows, 'rows')
    names = {name: textwrap.wrap(name, _CHARACTERS) or [''] for name in summaries}
    pitch = _LINE_HEIGHT * (1 + max(map(len, names.values())))
    top, left, width = 104, 458, 352
    height = pitch * len(rows)
    with style.canvas(path, style.WIDTH, top + height + 42) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        axes = style.axes_at(figure, left, top, width, height)
        low, high = _limits(list(summaries.values()), teacher_accuracy)
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), yticks=[])
        style.draw_grid(axes, 'x')
        if teacher_accuracy is not None:
            axes.axvline(teacher_accuracy, **_DASHED)
            x = left + width * (teacher_accuracy - low) / (high - low)
            style.write(page, x, top - 8, f'teacher {teacher_accuracy:.1f}', 12, ha='center')
        for place, (name, summary) in enumerate(summaries.items()):
            y = top + pitch * (place + 0.5) + 4.5
            for line, text in enumerate(names[name]):
                shift = _LINE_HEIGHT * (line - (len(names[name]) - 1) / 2)
                style.write_fitting(page, 20, y + shift, text, 12.5, left - 40)
            axes.plot(summary.ends, [place, place], color=style.BLUE, linewidth=4, alpha=0.35)
            axes.scatter(summary.accuracies, [place] * len(summary.accuracies), **_SEEDS)
            axes.plot(summary.mean, place, 'o', color=style.BLUE, markersize=8)
            spread = '' if summary.std is None else f' ± {summary.std:.2f}'
            text = f'{summary.mean:.2f}{spread}'
            style.write(page, style.WIDTH - 20, y, text, 12.5, ha='right', fontweight='bold')
    return Path(path)


def _checked(content: Mapping | Sequence[tuple], name: str) -> dict:
    settings = dict(content)
    if len(settings) < len(content):
        raise UsageError(
            f'{name}: found {len(content)} settings, but only {len(settings)} different ones; give '
            'all accuracies of a setting at once'
        )
    empty = [setting for setting, accuracies in settings.items() if len(accuracies) == 0]
    if empty or not settings:
        raise UsageError(
            f'{name}: found {len(settings)} settings, of which {empty} have no accuracy; expected '
            'one or more for each'
        )
    return {setting: summarise(accuracies) for setting, accuracies in settings.items()}


def _places(values: Sequence[float], is_log: bool) -> dict[float, float]:
    """Where on the axis each of the ascending values lies; a zero left of the decades."""
    if not is_log:
        return {value: value for value in values}
    places = {value: math.log10(value) for value in values if value > 0}
    if 0 in values:
        positions = list(places.values())
        places[0] = positions[0] - float(np.median(np.diff(positions)))
    return places


def _limits(summaries: Sequence[Summary], teacher_accuracy: float | None) -> tuple[float, float]:
    numbers = [number for s in summaries for number in (*s.ends, *s.accuracies)]
    numbers += [] if teacher_accuracy is None else [teacher_accuracy]
    margin = 0.09 * max(max(numbers) - min(numbers), 1.0)
    return min(numbers) - margin, max(numbers) + margin


def _prepare(
    axes: Axes, places: Mapping[float, float], limits: tuple[float, float], width: float
) -> list[float]:
    """Gives axes over values their look; returns the values that there is room to write at."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(places.values()), max(places.values())
    margin = 0.06 * (high - low) or 0.5
    axes.set(xlim=(low - margin, high + margin), ylim=limits)
    pixel = (high - low + 2 * margin) / width
    shown: list[float] = []
    for value in sorted(places):
        if not shown or places[value] - places[shown[-1]] >= _TICK * pixel:
            shown.append(value)
    axes.set_xticks([places[value] for value in shown], [f'{value:g}' for value in shown])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    style.draw_grid(axes)
    return shown


def _draw_line(
    axes: Axes,
    points: Mapping[float, Summary],
    places: Mapping[float, float],
    colour: str,
    line: Any,
    gap: bool,
) -> None:
    """Draws one line; with a gap its first stretch, from zero to the decades, is dashed."""
    values = sorted(points)
    x = [places[value] for value in values]
    means = [points[value].mean for value in values]
    lower, upper = zip(*(points[value].ends for value in values), strict=True)
    axes.fill_between(x, lower, upper, color=colour, alpha=0.18, linewidth=0)
    first = 1 if gap and values[0] == 0 else 0
    axes.plot(x[: first + 1], means[: first + 1], color=colour, linestyle=(0, (2, 2)))
    axes.plot(x[first:], means[first:], color=colour, linestyle=line)
    axes.plot(x, means, 'o', color=colour, markersize=7, clip_on=False)
    for value in values:
        accuracies = points[value].accuracies
        if len(accuracies) > 1:
            seeds = {**_SEEDS, 'color': colour}
            axes.scatter([places[value]] * len(accuracies), accuracies, **seeds)


def _write_means(
    axes: Axes, points: Mapping[float, Summary], places: Mapping[float, float], colour: str
) -> None:
    """Writes each mean above what is drawn at its value."""
    from matplotlib.patheffects import withStroke

    for value, summary in points.items():
        axes.annotate(
            f'{summary.mean:.1f}',
            (places[value], max(summary.ends[1], *summary.accuracies)),
            (0, 8),
            textcoords='offset points',
            color=style.darker(colour),
            fontsize=12,
            fontweight='bold',
            horizontalalignment='center',
            path_effects=[withStroke(linewidth=3, foreground=style.PAPER)],
        )


def _name_teacher(axes: Axes, accuracy: float, lines: Sequence[Mapping[float, Summary]]) -> None:
    """Names the teacher above its line, at the end that lines stay further away from."""
    from matplotlib.patheffects import withStroke

    def distance(end: Callable[[Iterable[float]], float]) -> float:
        return min(abs(points[end(points)].mean - accuracy) for points in lines)

    at_left = distance(min) > distance(max)
    axes.annotate(
        f'teacher {accuracy:.1f}',
        (0 if at_left else 1, accuracy),
        (0, 4),
        xycoords=('axes fraction', 'data'),
        textcoords='offset points',
        fontsize=12,
        horizontalalignment='left' if at_left else 'right',
        path_effects=[withStroke(linewidth=3, foreground=style.PAPER)],
    )


def _wrap(heading: str, characters: int) -> list[str]:
    """Breaks a heading into lines, but never between a key and its value."""
    glued = heading.replace(' = ', '\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}')
    lines = textwrap.wrap(glued, characters, break_long_words=False, break_on_hyphens=False)
    return [line.replace('\N{NO-BREAK SPACE}', ' ') for line in lines] or ['']


def _write_label(axes: Axes, label: str, width: float) -> None:
    """Names the axis of values; a long key is smaller, so that it stays under its panel."""
    axes.set_xlabel(label, fontsize=min(12, max(8, 1.7 * width / len(label))))
