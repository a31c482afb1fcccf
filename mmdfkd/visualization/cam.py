# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where networks look: class activation maps over images, one network beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN, _GAP, _BETWEEN, _TOP, _TILE = 20, 6, 32, 120, 144
_HEAT = ('#10306b', style.BLUE, '#f0e442', style.RED)  # from nothing to most
_ENLARGED = 4  # pixels of an overlay for one of the image, at least


def plot_cam(
    path: style.PathLike,
    images: Any,
    classes: Sequence[str],
    asked: Any,
    maps: Mapping[str, Any],
    probabilities: Mapping[str, Any],
    labels: Any | None = None,
    reach: Mapping[str, float] | None = None,
    title: str = 'Where teacher and student look',
) -> Path:
    """Shows each image and beside it, for each network, where it finds one and the same class.

    Under a map stands the class it is for, and how probable the network finds it; in red what the
    network sees if that is another class. Maps are drawn over the grey image, each on a scale of
    its own, since those of different networks have different units.

    Args:
        path: The PNG file to write, 960 page pixels wide with two networks.
        images: uint8 (N, H, W, C) or (N, C, H, W).
        classes: Names of the K classes.
        asked: The class whose maps these are, integers in [0, K), (N,).
        maps: By name of a network, (N, H', W'), at least 0; sizes may differ.
        probabilities: By the same names, (N, K).
        labels: True classes, (N,), or None.
        reach: By the same names, the share of an image's side over which a map is spread, see
            :func:`~mmdfkd.evaluation.map_reach`; by default 1.
        title: Heading.

    Returns:
        The path written.

    Raises:
        UsageError: If shapes or types do not fit together, or the file cannot be written.
    """
    shown = style.checked_images(images)
    count, num_classes = len(shown), len(classes)
    wanted = style.checked_classes(asked, count, num_classes, 'asked')
    truth = None
    if labels is not None:
        truth = style.checked_classes(labels, count, num_classes, 'labels')
    names = list(maps)
    heats = {name: _checked_maps(maps[name], count, name) for name in names}
    scores = {name: style.as_array(probabilities[name]) for name in names}
    for name, values in scores.items():
        if values.shape != (count, num_classes):
            raise UsageError(
                f'probabilities["{name}"]: found shape {values.shape}, expected '
                f'({count}, {num_classes}), one for each image and class'
            )
    first = 'image' if truth is None else 'image, true class'
    step = _TILE + _GAP
    block = (1 + len(names)) * step - _GAP + _BETWEEN
    blocks = max(1, (style.WIDTH - 2 * _MARGIN + _BETWEEN) // block)
    rows = -(-count // blocks)
    captions = {
        name: [
            _answer(classes, int(wanted[number]), scores[name][number], heats[name][number])
            for number in range(count)
        ]
        for name in names
    }
    lines = max(len(caption) for each in captions.values() for caption in each)
    row_height = _TILE + 16 + 14 * max(lines, 2)
    width = max(style.WIDTH, 2 * _MARGIN + block - _BETWEEN)
    note = (
        'Grad-CAM: what in the image speaks for the class that the teacher sees. Below: that '
        'class, and how probable the network\nfinds it; in red what it sees instead. Each map has '
        'a scale of its own:'
    )
    with style.canvas(path, width, _TOP + rows * row_height + 4) as figure:
        page = style.page_of(figure)
        style.draw_title(page, title, note)
        _draw_scale(page, 462, 64)
        for number in range(count):
            row, column = divmod(number, blocks)
            x, y = _MARGIN + column * block, _TOP + row * row_height
            if row == 0:
                _write_headings(page, x, [first, *names])
            style.draw_tile(page, shown[number], x, y, _TILE)
            if truth is not None:
                _write_caption(page, x, y, [(str(classes[truth[number]]), style.MUTED)])
            for place, name in enumerate(names, 1):
                left, share = x + place * step, (reach or {}).get(name, 1.0)
                mixed = overlay(shown[number], heats[name][number], share)
                style.draw_tile(page, mixed, left, y, _TILE)
                _write_caption(page, left, y, captions[name][number])
    return Path(path)


def overlay(image: np.ndarray, heat: np.ndarray, reach: float = 1.0) -> np.ndarray:
    """Lays a map over an image in grey.

    Args:
        image: uint8 (H, W, C).
        heat: (H', W'), at least 0. Its largest value takes the last colour, 0 the first; between
            the centres of its places it is interpolated.
        reach: The share of the image's sides over which its places are spread, in the middle; there
            is nothing beyond.

    Returns:
        uint8 (n H, n W, 3), enlarged n times.
    """
    from matplotlib.colors import LinearSegmentedColormap

    height, width = (side * _ENLARGED for side in image.shape[:2])
    grey = image.mean(axis=2).repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1) / 255
    rows, columns = heat.shape
    smooth = _stretch(rows, height, reach) @ heat @ _stretch(columns, width, reach).T
    colours = LinearSegmentedColormap.from_list('heat', _HEAT)(smooth / (heat.max() or 1.0))
    mixed = 0.5 * colours[:, :, :3] + 0.5 * grey[:, :, None]
    return (255 * mixed).round().astype(np.uint8)


def _stretch(count: int, size: int, reach: float) -> np.ndarray:
    """The matrix (size, count) that interpolates between ``count`` places, spread in the middle."""
    share = (np.arange(size) + 0.5) / size
    places = ((share - 0.5) / reach + 0.5) * count - 0.5
    if reach == 1:
        places = places.clip(0, count - 1)
    return (1 - abs(places[:, None] - np.arange(count))).clip(0)  # tents


def _checked_maps(maps: Any, count: int, name: str) -> np.ndarray:
    heats = style.as_array(maps).astype(np.float64)
    if heats.ndim != 3 or len(heats) != count or not (heats >= 0).all():
        raise UsageError(
            f'maps["{name}"]: found shape {heats.shape}, expected ({count}, H, W), one map of '
            'values from 0 on for each image'
        )
    return heats


def _write_headings(page: Axes, x: float, words: Sequence[str]) -> None:
    for place, word in enumerate(words):
        left = x + place * (_TILE + _GAP)
        style.write_fitting(page, left, _TOP - 8, word, 11, _TILE, fontweight='bold')


def _answer(
    classes: Sequence[str], wanted: int, score: np.ndarray, heat: np.ndarray
) -> list[tuple[str, str]]:
    """The lines under a map and their colours."""
    lines = [(f'{style.shorten(str(classes[wanted]), 14)}: {score[wanted]:.2f}', style.MUTED)]
    seen = int(score.argmax())
    if seen != wanted:
        lines.append(
            (f'sees {style.shorten(str(classes[seen]), 10)}: {score[seen]:.2f}', style.RED)
        )
    if not heat.any():
        lines.append(('no place speaks for it', style.MUTED))
    return lines


def _write_caption(page: Axes, x: float, y: float, lines: Sequence[tuple[str, str]]) -> None:
    """Writes lines under the tile at (x, y)."""
    for number, (text, colour) in enumerate(lines):
        below = y + _TILE + 15 + 14 * number
        style.write_fitting(
            page, x + _TILE / 2, below, text, 11.5, _TILE, ha='center', color=colour
        )


def _draw_scale(page: Axes, x: float, y: float) -> None:
    """Draws the colours of the maps, as they are over mid-grey, and what they mean."""
    bar = overlay(np.full((2, 30, 1), 128, np.uint8), np.linspace(0, 1, 30)[None])
    text = style.write(page, x, y + 10.5, 'nothing', 12.5, color=style.MUTED)
    left = x + text.get_window_extent().width + 6
    style.draw_tile(page, bar, left, y - 54, 120)
    style.write(page, left + 126, y + 10.5, 'most', 12.5, color=style.MUTED)
