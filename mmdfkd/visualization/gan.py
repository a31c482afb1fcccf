# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How a GAN trained: its discriminator's scores, and the classes its images show the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style
from .curves import LEFT, PLOT_WIDTH, draw_curve, label_right, prepare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT, _SHARES_WIDTH = 230, style.WIDTH - LEFT - 20
_KINDS = (
    ('collected, learned from', style.BLUE),
    ('collected, held out', style.SKY),
    ('generated', style.ORANGE),
)
#: More classes than these are drawn in the order of their frequency, without names.
_NAMED = 20


def plot_gan(
    path: style.PathLike,
    epochs: Any,
    scores: Any,
    classes: Sequence[str],
    shares: Mapping[str, Any],
) -> Path:
    """Draws the discriminator's scores over epochs, and class frequencies beside each other.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        epochs: Epochs of the GAN, (E,).
        scores: Mean scores of collected, held-out and generated images, (E, 3); a column of NaN is
            left out.
        classes: Names of the K classes.
        shares: Counts by class (K,) by name, in the order they are drawn.

    Returns:
        The path written.

    Raises:
        UsageError: If shapes do not fit together, or the file cannot be written.
    """
    epochs, scores = style.as_array(epochs), style.as_array(scores)
    if scores.shape != (len(epochs), len(_KINDS)) or not len(epochs):
        raise UsageError(
            f'scores: found shape {scores.shape}, expected ({len(epochs)}, {len(_KINDS)}), one row '
            'for each of 1 epoch or more'
        )
    counts = {
        name: style.checked_length(values, len(classes), name, 'class').astype(float)
        for name, values in shares.items()
    }
    top = 110
    bottom = 140 if _upright(classes) else 232
    with style.canvas(path, style.WIDTH, top + 2 * _HEIGHT + bottom) as figure:
        page = style.page_of(figure)
        style.draw_title(
            page,
            'How the GAN trained',
            'A discriminator that knows its images by heart lifts the dark blue line alone.',
        )
        style.write(
            page, 20, top - 14, 'Mean score of the discriminator: real above 0, fake below', 13
        )
        axes = style.axes_at(figure, LEFT, top, PLOT_WIDTH, _HEIGHT)
        prepare_axes(axes, float(epochs[0]), float(epochs[-1]))
        axes.axhline(0, color=style.MUTED, linewidth=1)
        axes.set_xlabel('epoch of the GAN', fontsize=12)
        tags = [
            draw_curve(axes, list(zip(epochs, column, strict=True)), colour, name, '.2f')
            for column, (name, colour) in zip(scores.T, _KINDS, strict=True)
            if np.isfinite(column).any()
        ]
        label_right(axes, tags, _HEIGHT)

        top += _HEIGHT + 96
        style.write(page, 20, top - 34, 'Classes the teacher sees, in percent of the images', 13)
        axes = style.axes_at(figure, LEFT, top, _SHARES_WIDTH, _HEIGHT)
        _draw_shares(axes, counts, classes)
    return Path(path)


def divergence_from_uniform(counts: np.ndarray) -> float:
    """KL divergence of a histogram (K,) from the uniform distribution, in nats, in [0, ln K]."""
    share = counts / max(counts.sum(), 1)
    seen = share[share > 0]
    return max(0.0, float(np.log(len(counts)) + (seen * np.log(seen)).sum()))


def _upright(classes: Sequence[str]) -> bool:
    """Whether the names that are written fit side by side."""
    longest = max(len(style.shorten(str(name))) for name in classes)
    return len(classes) > _NAMED or 8 * longest <= _SHARES_WIDTH / len(classes)


def _draw_shares(axes: Axes, counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    colours = (style.GREY, style.SKY, style.ORANGE, style.RED)
    places = np.arange(len(classes))
    width = 0.8 / max(1, len(counts))
    for number, (name, values) in enumerate(counts.items()):
        share = 100 * values / max(values.sum(), 1)
        label = f'{name}: KL {divergence_from_uniform(values):.3f}'
        colour = colours[number % len(colours)]
        if len(classes) <= _NAMED:
            shift = (number - (len(counts) - 1) / 2) * width
            axes.bar(places + shift, share, width, color=colour, label=label)
        else:
            axes.plot(places, np.sort(share)[::-1], color=colour, label=label)
    axes.axhline(
        100 / len(classes), color=style.INK, linewidth=1, linestyle=(0, (5, 3)), label='uniform'
    )
    style.draw_grid(axes)
    if len(classes) <= _NAMED:
        names = [style.shorten(str(name)) for name in classes]
        axes.set_xticks(places, names, rotation=0 if _upright(classes) else 90)
    else:
        axes.set_xlabel('classes, from most to least frequent', fontsize=12)
    axes.legend(
        loc='lower left', bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=11.5,
        borderaxespad=0, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
