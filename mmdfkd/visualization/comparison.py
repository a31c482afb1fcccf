# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Methods side by side: a bar chart with its table, and the picture that opens the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ('name', 'accuracy', 'std', 'agreement', 'images', 'seconds')


def duration(seconds: float) -> str:
    """Writes a time the way people say it: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, 'h'), (minutes, 'min'), (0 if hours else rest, 's')]
    return ' '.join(f'{value:,} {unit}' for value, unit in parts if value) or '0 s'


def _check(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], teacher_accuracy: float) -> None:
    if len(rows) == 0:
        raise UsageError('rows: found none, expected one method or more')
    for number, row in enumerate(rows):
        missing = [key for key in keys if key not in row]
        if missing:
            raise UsageError(
                f'rows[{number}]: found the keys {sorted(row)}, but {missing} are missing; '
                'give None for what was not measured'
            )
    accuracies = [row['accuracy'] for row in rows]
    if not 1 < teacher_accuracy <= 100 or not all(0 <= value <= 100 for value in accuracies):
        raise UsageError(
            f'found the teacher accuracy {teacher_accuracy} and the accuracies {accuracies}, '
            'expected percentages from 0 to 100'
        )


def _draw_bars(
    figure: Figure,
    page: Axes,
    box: tuple[float, float, float],
    rows: Sequence[Mapping[str, Any]],
    teacher_accuracy: float,
    pitch: float,
    thickness: float,
) -> None:
    """Draws a bar of 0 to 100 % every ``pitch`` pixels in the box (left, top, width) of a page."""
    left, top, width = box
    height = pitch * len(rows)
    axes = style.axes_at(figure, left, top, width, height)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines['bottom'].set_visible(False)
    axes.patch.set_visible(False)
    for position, row in enumerate(rows):
        colour = style.GREY if row.get('baseline') else style.BLUE
        axes.barh(position, row['accuracy'], height=thickness / pitch, color=colour)
        spread = '' if row.get('std') is None else f' ± {row["std"]:.1f}'
        inside = row['accuracy'] > 45
        axes.text(
            row['accuracy'] + (-1.5 if inside else 1.5),
            position,
            f'{row["accuracy"]:.1f}{spread} %',
            fontsize=12.5,
            fontweight='bold',
            color=style.PAPER if inside else style.INK,
            horizontalalignment='right' if inside else 'left',
            verticalalignment='center_baseline',
        )
    axes.axvline(teacher_accuracy, color=style.INK, linestyle=(0, (4, 2.5)), linewidth=1.5)
    style.write(
        page,
        left + width * teacher_accuracy / 100,
        top - 7,
        f'teacher {teacher_accuracy:.1f} %',
        12.5,
        fontweight='bold',
        horizontalalignment='right' if teacher_accuracy > 60 else 'left',
    )


def plot_comparison(
    path: style.PathLike,
    rows: Sequence[Mapping[str, Any]],
    teacher_accuracy: float,
    title: str = 'How close each student comes to its teacher',
    note: str = '',
) -> Path:
    """Draws methods against accuracy, the teacher as a dashed line, with what each one cost.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        rows: One mapping per method, drawn from top to bottom: ``name``; ``accuracy`` in percent;
            ``std`` in percentage points over seeds or None; ``agreement`` with the teacher in
            percent or None; how many different ``images`` the student was given, or None;
            ``seconds`` of training or None. With ``baseline=True`` a bar is grey.
        teacher_accuracy: In percent.
        title: Heading of the figure.
        note: A line under the heading, such as the data set and the pair of networks.

    Returns:
        The path written.

    Raises:
        UsageError: If a row lacks a key, a number is no percentage, or the file cannot be written.
    """
    _check(rows, _COLUMNS, teacher_accuracy)
    pitch, top, left, width = 36, 122, 250, 360
    columns = (
        (734, 'agrees with\nthe teacher', 'agreement', '{:.1f} %'.format),
        (836, 'images\nused', 'images', '{:,}'.format),
        (940, 'training\ntime', 'seconds', duration),
    )
    with style.canvas(path, style.WIDTH, top + pitch * len(rows) + 24) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        _draw_bars(figure, page, (left, top, width), rows, teacher_accuracy, pitch, 24)
        style.write(page, left, top - 7, 'accuracy', 12, color=style.MUTED)
        for right, heading, _, _ in columns:
            style.write_lines(page, right, top - 24, heading, 12, color=style.MUTED, ha='right')
        for position, row in enumerate(rows):
            y = top + pitch * (position + 0.5) + 4.5
            style.write_fitting(page, 20, y, str(row['name']), 13, left - 32)
            for right, _, key, form in columns:
                text = '–' if row[key] is None else form(row[key])
                style.write(page, right, y, text, 12.5, ha='right')
    return Path(path)


def plot_readme_banner(
    path: style.PathLike,
    selected_images: Any,
    rejected_images: Any,
    rows: Sequence[Mapping[str, Any]],
    teacher_accuracy: float,
    teacher: str = '',
    student: str = '',
    title: str = 'A small student from a trained teacher, without its training data',
    seed: int = 0,
) -> Path:
    """Draws the whole idea in one picture: images in, teacher to student, accuracies out.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        selected_images: Pool images selected in the last epoch, uint8 (N, H, W, C) or
            (N, C, H, W); a random 14 of them are shown.
        rejected_images: Pool images that were not, of either layout as well.
        rows: ``name`` and ``accuracy`` in percent of each student, from top to bottom; optional
            ``std`` in percentage points and ``baseline=True`` for a grey bar.
        teacher_accuracy: In percent.
        teacher: A line about the teacher, such as ``'LeNet5, 62 k weights'``.
        student: A line about the student.
        title: Heading of the figure.
        seed: Seed of the draw of the images.

    Returns:
        The path written.

    Raises:
        UsageError: If images or rows are not as described, or the file cannot be written.
    """
    _check(rows, ('name', 'accuracy'), teacher_accuracy)
    strips = (
        ('What the student saw', 'unlabelled images selected in the last epoch', style.GREEN),
        ('What was set aside', 'unlabelled images left out of the last epoch', style.GREY),
    )
    pools = [
        style.checked_images(selected_images, 'selected_images'),
        style.checked_images(rejected_images, 'rejected_images'),
    ]
    pitch = float(np.clip(228 / len(rows), 46, 62))
    height = max(352, round(112 + pitch * len(rows) + 16))
    with style.canvas(path, style.WIDTH, height) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title)
        draw = np.random.default_rng(seed)
        for strip, (pool, (heading, text, colour)) in enumerate(zip(pools, strips, strict=True)):
            top = 76 + 142 * strip
            shade = style.darker(colour)
            style.write(page, 20, top, heading, 14, fontweight='bold', color=shade)
            style.write(page, 20, top + 17, text, 12, color=style.MUTED)
            if len(pool) == 0:
                style.write(page, 20, top + 52, 'none', 12, color=style.MUTED)
            for place, index in enumerate(draw.permutation(len(pool))[:14]):
                line, column = divmod(place, 7)
                x, y = 21 + 46 * column, top + 28 + 46 * line
                style.draw_tile(page, pool[index], x, y, 40, colour)
        _draw_lesson(page, teacher, student)
        style.write(page, 630, 76, 'Accuracy on unseen test images', 14, fontweight='bold')
        for position, row in enumerate(rows):
            baseline = 112 + pitch * (position + 0.5) - 17
            style.write_fitting(page, 630, baseline, str(row['name']), 12, 280)
        _draw_bars(figure, page, (630, 112, 310), rows, teacher_accuracy, pitch, 22)
    return Path(path)


def _draw_lesson(page: Axes, teacher: str, student: str) -> None:
    """Draws the middle of the banner: images flow in, the teacher teaches the student."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    def box(x: float, y: float, width: float, height: float, name: str, text: str) -> None:
        page.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle='round,pad=0,rounding_size=8',
                facecolor=style.INK,
                edgecolor='none',
            )
        )
        middle = y + height / 2 + (5 if not text else -3)
        centre = x + width / 2
        style.write(
            page, centre, middle, name, 15, color=style.PAPER, ha='center', fontweight='bold'
        )
        style.write(page, centre, middle + 18, text, 11, color=style.PAPER, ha='center')

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        page.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle='simple,head_width=14,head_length=11,tail_width=5',
                shrinkA=0,
                shrinkB=0,
                color=colour,
                linewidth=0,
            )
        )

    box(418, 102, 156, 88, 'teacher', teacher)
    box(440, 262, 112, 62, 'student', student)
    arrow((354, 146), (408, 146), style.GREEN)
    arrow((496, 200), (496, 252), style.INK)
    style.write_lines(
        page, 482, 221, 'teaches by\nits answers', 11.5, color=style.MUTED, ha='right'
    )
    style.write_lines(page, 510, 221, 'no training\ndata needed', 11.5, color=style.MUTED)
    arrow((562, 293), (614, 293), style.BLUE)
