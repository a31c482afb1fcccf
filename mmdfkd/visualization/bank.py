# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a bank of synthetic images holds, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style
from .pool_grid import shown_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_WIDTH, _BAR_WIDTH, _MARGIN, _GAP, _HEADER = 110, 130, 20, 6, 96


def plot_bank(
    path: style.PathLike,
    images: Any,
    targets: Any,
    classes: Sequence[str],
    labels: Any | None = None,
    confidences: Any | None = None,
    title: str = 'What the bank holds',
    per_class: int = 10,
    seed: int = 0,
) -> Path:
    """Shows, class by class, how many images were made for it and a random draw of them.

    Where the teacher's answers are given, a second bar counts what it sees, and under each image
    stands the class it sees, with its confidence; in red where it is not the one asked for. With
    more than 20 classes, 20 are shown, evenly spaced from the most to the least frequent.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        images: The bank, uint8 (N, H, W, C) or (N, C, H, W); only the shown images are read.
        targets: Classes the images were made for, integers in [0, K), (N,).
        classes: Names of the K classes.
        labels: Classes the teacher sees, (N,), or None.
        confidences: How sure it is, (N,), or None.
        title: Heading.
        per_class: Most images shown in a row.
        seed: Seed of the draw; each class draws on its own.

    Returns:
        The path written.

    Raises:
        UsageError: If shapes or types do not fit together, or the file cannot be written.
    """
    bank = style.checked_images(images)
    count, num_classes = len(bank), len(classes)
    asked = style.checked_classes(targets, count, num_classes, 'targets')
    if per_class < 1:
        raise UsageError(f'per_class: found {per_class}, expected 1 image or more')
    seen, scores = None, None
    if labels is not None:
        seen = style.checked_classes(labels, count, num_classes, 'labels')
        scores = style.checked_length(confidences, count, 'confidences', 'image')
    made_for = np.bincount(asked, minlength=num_classes)
    seen_as = None if seen is None else np.bincount(seen, minlength=num_classes)
    rows = shown_classes(made_for)

    left = _MARGIN + _LABEL_WIDTH + _BAR_WIDTH + 4 * _GAP
    tile = float(np.clip((style.WIDTH - _MARGIN - left) / per_class - _GAP, 36, 64))
    row_height = tile + (40 if seen is not None else 12)
    width = max(style.WIDTH, round(left + per_class * (tile + _GAP) + _MARGIN))
    height = round(_HEADER + len(rows) * row_height + 8)
    note = f'{count:,} images by the class they were made for.'
    if seen is not None:
        note += (
            f' The teacher sees that class in {np.mean(seen == asked):.0%} of them; under each '
            'image: what it sees, how sure it is.'
        )
    if len(rows) < num_classes:
        note += f'\nShown: {len(rows)} of the {num_classes} classes, from most to least frequent.'
    longest = max(made_for.max(), 0 if seen_as is None else seen_as.max())
    with style.canvas(path, width, height) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        for row, label in enumerate(rows):
            top = _HEADER + row * row_height
            style.write_fitting(
                page,
                _MARGIN,
                top + tile / 2 + 5,
                str(classes[label]),
                13,
                _LABEL_WIDTH - 8,
                fontweight='bold',
            )
            bars = [(made_for[label], style.BLUE, 'made')]
            if seen_as is not None:
                bars.append((seen_as[label], style.ORANGE, 'seen'))
            _draw_bars(page, bars, longest, top, tile)
            members = np.flatnonzero(asked == label)
            draw = np.random.default_rng([seed, label])
            shown = np.sort(draw.choice(members, min(per_class, len(members)), replace=False))
            for column, index in enumerate(shown):
                x = left + column * (tile + _GAP)
                style.draw_tile(page, bank[index], x, top, tile)
                if seen is not None and scores is not None:
                    caption = (str(classes[seen[index]]), f'{scores[index]:.2f}')
                    colour = style.MUTED if seen[index] == label else style.RED
                    for line, text in enumerate(caption):
                        y = top + tile + 13 + 12 * line
                        style.write_fitting(
                            page, x + tile / 2, y, text, 10, tile, ha='center', color=colour
                        )
    return Path(path)


def _draw_bars(
    page: Axes, bars: Sequence[tuple[int, str, str]], longest: int, top: float, tile: float
) -> None:
    """Draws one bar below the other, with its number, beside the images of a class."""
    from matplotlib.patches import Rectangle

    x, room = _MARGIN + _LABEL_WIDTH, _BAR_WIDTH - 62
    height = 12
    first = top + tile / 2 - len(bars) * (height + 3) / 2
    for number, (count, colour, word) in enumerate(bars):
        y, length = first + number * (height + 3), room * count / max(longest, 1)
        page.add_patch(Rectangle((x, y), length, height, color=colour, linewidth=0))
        text = f'{count:,} {word}'
        style.write(page, x + length + 5, y + height - 2, text, 10.5, color=style.MUTED)
