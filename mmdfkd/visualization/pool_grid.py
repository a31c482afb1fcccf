# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Tables of images: what a selector kept of a pool and what it set aside, and plain grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_ROWS = 20
_LABEL_WIDTH, _MARGIN, _GAP, _HEADER = 178, 20, 6, 116


def plot_pool_grid(
    path: style.PathLike,
    images: Any,
    classes: Sequence[str],
    pseudo_labels: Any,
    confidences: Any,
    selected: Any,
    thresholds: Any | None,
    per_class: int = 8,
    seed: int = 0,
) -> Path:
    """Shows, class by class, pool images selected in the last epoch beside those set aside.

    A row holds a random draw of the images whose pseudo-label is that class, most confident first.
    With more than 20 classes, 20 are shown, evenly spaced from the most to the least frequent.

    Args:
        path: The PNG file to write, about 960 page pixels wide.
        images: The pool, uint8 (N, H, W, C) or (N, C, H, W); only the shown images are read.
        classes: Names of the K classes.
        pseudo_labels: Integers in [0, K), (N,).
        confidences: Score of each image for its pseudo-label, (N,), printed under the image.
        selected: Booleans, (N,).
        thresholds: What a confidence has to exceed, (K,), or None for selectors without one.
        per_class: Most images shown on each side of a row.
        seed: Seed of the draw; each class draws on its own.

    Returns:
        The path written.

    Raises:
        UsageError: If shapes or types do not fit together, or the file cannot be written.
    """
    pool = style.checked_images(images)
    count, num_classes = len(pool), len(classes)
    labels = style.checked_classes(pseudo_labels, count, num_classes, 'pseudo_labels')
    scores = style.checked_length(confidences, count, 'confidences', 'image')
    kept = style.checked_length(selected, count, 'selected', 'image')
    bars = None
    if thresholds is not None:
        bars = style.checked_length(thresholds, num_classes, 'thresholds', 'class')
    if kept.dtype != np.bool_:
        raise UsageError(f'selected: found {kept.dtype} values, expected booleans, one per image')
    if per_class < 1:
        raise UsageError(f'per_class: found {per_class}, expected 1 image or more')

    frequency = np.bincount(labels, minlength=num_classes)
    rows = shown_classes(frequency)

    free = style.WIDTH - 2 * _MARGIN - _LABEL_WIDTH - 4 * _GAP
    tile = float(np.clip(free / (2 * per_class) - _GAP, 36, 64))
    block = per_class * (tile + _GAP)
    sides = (_MARGIN + _LABEL_WIDTH, _MARGIN + _LABEL_WIDTH + block + 4 * _GAP)
    row_height = tile + 30
    width = max(style.WIDTH, round(sides[1] + block + _MARGIN))
    height = round(_HEADER + len(rows) * row_height + 8)

    note = f'{kept.sum():,} of {count:,} images selected ({100 * kept.mean():.0f} %) in that epoch'
    below = 0 if bars is None else np.sum(scores[kept] <= bars[labels[kept]])
    if below:
        note += f', {below:,} of them below their threshold'
    note += '.\nUnder each image: how sure its prediction is.'
    if len(rows) < num_classes:
        note += (
            f' Shown: {len(rows)} of the {num_classes} classes, from the most to the least '
            'often predicted.'
        )
    with style.canvas(path, width, height) as figure:
        page = style.page_of(figure)
        style.draw_title(page, 'Which pool images the student learned from in the last epoch', note)
        for x, heading, colour in (
            (_MARGIN, 'Predicted as', style.INK),
            (sides[0], 'Selected for training', style.darker(style.GREEN)),
            (sides[1], 'Set aside', style.darker(style.GREY)),
        ):
            style.write(page, x, _HEADER - 10, heading, 13, color=colour, fontweight='bold')
        for row, label in enumerate(rows):
            top = _HEADER + row * row_height
            members = labels == label
            lines = [f'{np.sum(members & kept):,} of {frequency[label]:,} selected']
            if frequency[label] == 0:
                lines = ['never predicted']
            elif bars is not None:
                lines.insert(0, f'threshold {bars[label]:.2f}')
            name = str(classes[label])
            style.write_fitting(
                page, _MARGIN, top + 16, name, 14, _LABEL_WIDTH - 16, fontweight='bold'
            )
            style.write_lines(page, _MARGIN, top + 33, '\n'.join(lines), 11, color=style.MUTED)
            draw = np.random.default_rng([seed, label])
            for x, group, colour in zip(
                sides, (members & kept, members & ~kept), (style.GREEN, style.GREY), strict=True
            ):
                found = np.flatnonzero(group)
                shown = draw.choice(found, min(per_class, len(found)), replace=False)
                shown = shown[np.argsort(-scores[shown], kind='stable')]
                _draw_block(page, pool, shown, scores, x, top, tile, colour)
    return Path(path)


def shown_classes(frequency: np.ndarray) -> list[int]:
    """Lists all classes (K,), or 20 evenly spaced from the most to the least frequent one."""
    if len(frequency) <= _MAX_ROWS:
        return list(range(len(frequency)))
    ranks = np.linspace(0, len(frequency) - 1, _MAX_ROWS).round().astype(int)
    return np.argsort(-frequency, kind='stable')[ranks].tolist()


def _draw_block(
    page: Axes,
    pool: np.ndarray,
    shown: np.ndarray,
    scores: np.ndarray,
    left: float,
    top: float,
    tile: float,
    colour: str,
) -> None:
    if len(shown) == 0:
        style.write(page, left, top + tile / 2 + 4, 'none', 12, color=style.MUTED)
    for column, index in enumerate(shown):
        x = left + column * (tile + _GAP)
        style.draw_tile(page, pool[index], x, top, tile, colour)
        style.write(
            page,
            x + tile / 2,
            top + tile + 14,
            f'{scores[index]:.2f}',
            10.5,
            color=style.MUTED,
            horizontalalignment='center',
        )


def save_image_grid(
    path: style.PathLike,
    images: Any,
    columns: int,
    labels: Sequence[str] | None = None,
    upscale: int = 2,
) -> Path:
    r"""Writes images side by side, row by row, each pixel ``upscale`` pixels wide and high.

    Args:
        path: The PNG file to write.
        images: uint8 (N, H, W, C) or (N, C, H, W).
        columns: Images in a row.
        labels: A caption under each image, such as ``'cat\n0.98'``; a caption wider than its
            image is shortened.
        upscale: Whole-number enlargement, without smoothing.

    Returns:
        The path written.

    Raises:
        UsageError: If shapes or types do not fit together, or the file cannot be written.
    """
    pool = style.checked_images(images)
    count, height, width, _ = pool.shape
    if count == 0 or columns < 1 or upscale < 1:
        raise UsageError(
            f'found {count} images, columns={columns} and upscale={upscale}: '
            'each has to be 1 or more'
        )
    if labels is not None and len(labels) != count:
        raise UsageError(f'labels: found {len(labels)} captions for {count} images')
    columns = min(columns, count)
    rows = -(-count // columns)
    gap, line_height = 4, 13
    lines = [str(label).split('\n') for label in labels or []]
    caption = max((len(parts) for parts in lines), default=0) * line_height
    step_x, step_y = width * upscale + gap, height * upscale + gap + caption
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), 255, np.uint8)
    corners = [
        (gap + row * step_y, gap + column * step_x)
        for row, column in (divmod(index, columns) for index in range(count))
    ]
    for image, (top, left) in zip(pool, corners, strict=True):
        enlarged = image.repeat(upscale, axis=0).repeat(upscale, axis=1)
        sheet[top : top + height * upscale, left : left + width * upscale] = enlarged

    with style.canvas(path, sheet.shape[1], sheet.shape[0], pixel_ratio=1) as figure:
        page = style.page_of(figure)
        page.imshow(
            sheet,
            extent=(0, sheet.shape[1], sheet.shape[0], 0),
            aspect='auto',
            interpolation='nearest',
        )
        for parts, (top, left) in zip(lines, corners, strict=False):
            for line, text in enumerate(parts):
                style.write_fitting(
                    page,
                    left + width * upscale / 2,
                    top + height * upscale + (line + 1) * line_height - 1,
                    text,
                    10.5,
                    step_x,
                    horizontalalignment='center',
                )
    return Path(path)
