# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Heat maps of matrices over pairs of classes: DFND's adaptation matrix, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _TOP, _SIDE = 150, 110, 620
_NUMBERED = 12  # most classes whose numbers fit into their cells
_NAMED = 40  # most names that fit beside an axis


def plot_matrix(
    path: style.PathLike,
    matrix: Any,
    classes: Sequence[str],
    title: str,
    note: str = '',
    rows: str = 'true class',
    columns: str = 'label',
) -> Path:
    """Draws probabilities of pairs of classes, each row a distribution.

    Colours are for the entries off the diagonal, from the lowest to the highest, which are far
    smaller than those on it; the diagonal is grey. Up to 12 classes have their numbers, in percent,
    in the cells; of more than 40 classes every n-th is named. A row of NaN, of a class of which
    nothing is known, stays empty.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        matrix: Probabilities, (K, K); whole rows may be NaN, but not all.
        classes: Names of the K classes.
        title: Heading of the figure.
        note: A line or two under the heading.
        rows: What a row stands for.
        columns: What a column stands for.

    Returns:
        The path written.

    Raises:
        UsageError: If the matrix is not (K, K) with values in [0, 1] or rows of NaN, or the file
            cannot be written.
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    values = style.as_array(matrix)
    count = len(classes)
    if values.shape != (count, count) or count < 2:
        raise UsageError(
            f'matrix: found shape {values.shape}, expected ({count}, {count}), one row and one '
            'column for each of 2 classes or more'
        )
    known = ~np.isnan(values).all(1)
    if not (known.any() and np.all(values[known] >= 0) and np.all(values[known] <= 1 + 1e-6)):
        raise UsageError('matrix: found values outside [0, 1], expected probabilities')
    is_diagonal = np.eye(count, dtype=bool)
    wrong = values[~is_diagonal & known[:, None]]
    low, top = float(wrong.min()), float(wrong.max()) or 0.01
    if top - low < 0.01 * top:  # all alike: nothing to tell apart
        low = 0.0

    with style.canvas(
        path, style.WIDTH, _TOP + _SIDE + (40 if _upright(classes) else 130)
    ) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        axes = style.axes_at(figure, _LEFT, _TOP, _SIDE, _SIDE)
        colours = LinearSegmentedColormap.from_list('blues', [style.PAPER, style.SKY, style.BLUE])
        axes.imshow(
            np.ma.masked_array(values, is_diagonal),
            cmap=colours,
            vmin=low,
            vmax=top,
            interpolation='nearest',
        )
        grey = ListedColormap([style.FAINT])
        shown = np.where(is_diagonal & known[:, None], 1.0, np.nan)
        axes.imshow(shown, cmap=grey, interpolation='nearest')
        _name_classes(axes, classes)
        if count <= _NUMBERED:
            _write_numbers(axes, values, low, top)
        style.write(page, _LEFT - 8, _TOP - 10, f'{rows} ↓', 12.5, ha='right', color=style.MUTED)
        style.write(page, _LEFT, _TOP - 10, f'{columns} →', 12.5, color=style.MUTED)

        bar = style.axes_at(figure, _LEFT + _SIDE + 36, _TOP, 18, 200)
        bar.imshow(
            np.linspace(top, low, 128)[:, None],
            aspect='auto',
            cmap=colours,
            extent=(0, 1, 100 * low, 100 * top),
        )
        bar.set(xticks=[])
        bar.yaxis.tick_right()
        bar.tick_params(labelsize=11)
        x = _LEFT + _SIDE + 36
        style.write(page, x, _TOP - 10, 'off the diagonal, %', 12, color=style.MUTED)
        diagonal = values[is_diagonal][known] * 100
        style.write(page, x, _TOP + 240, f'on it: {_span(diagonal)} %', 12, color=style.MUTED)
    return Path(path)


def _span(values: np.ndarray) -> str:
    low, high = (f'{value:.1f}' for value in (values.min(), values.max()))
    return low if low == high else f'{low} to {high}'


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    count = len(classes)
    places = range(0, count, -(-count // _NAMED))
    size = 12 if count <= 20 else 8.5
    names = [style.shorten(str(name)) for name in classes]
    rotation = 0 if _upright(classes) else 90
    axes.set_xticks(places, [names[p] for p in places], rotation=rotation)
    axes.set_yticks(places, [names[p] for p in places])
    axes.tick_params(length=0, labelsize=size)
    axes.spines[['top', 'right']].set_visible(True)


def _upright(classes: Sequence[str]) -> bool:
    """Whether names fit side by side under their columns."""
    return len(classes) <= _NUMBERED and max(len(str(name)) for name in classes) <= 6


def _write_numbers(axes: Axes, values: np.ndarray, low: float, top: float) -> None:
    digits = 1 if top >= 0.02 else 2
    for row, column in np.argwhere(~np.isnan(values)):
        value, on_diagonal = values[row, column], row == column
        light = not on_diagonal and value - low > 0.6 * (top - low)
        axes.text(
            column,
            row,
            f'{100 * value:.{1 if on_diagonal else digits}f}',
            ha='center',
            va='center',
            fontsize=11.5,
            color=style.PAPER if light else style.INK,
        )
