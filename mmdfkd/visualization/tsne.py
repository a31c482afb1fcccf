# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where groups of images lie in the teacher's feature space (Figure 3 of KD³, ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..utils import UsageError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {'original': '#c8201e', 'selected': '#f5a300', 'rejected': '#8fa6bd'}
_MARKERS = {'original': 'o', 'selected': '^', 'rejected': 's'}
_MAX_DIMENSIONS = 50


class Distances(NamedTuple):
    """How far a group of points lies from a reference group, in the unit of the features.

    Attributes:
        centre: Mean distance to the reference group's centroid. Where the reference consists of
            several clusters, as classes are, its own points may lie far from it too.
        nearest: Mean distance to the nearest reference point other than the point itself.
    """

    centre: float
    nearest: float


def distances_to(groups: Mapping[str, np.ndarray], reference: str) -> dict[str, Distances]:
    """Measures how far each group lies from the reference group, by Euclidean distances.

    Args:
        groups: Features by group name, each (n_i, D).
        reference: Name of the reference group, of two points or more.
    """
    from sklearn.neighbors import NearestNeighbors

    centre = groups[reference].mean(axis=0)
    index = NearestNeighbors().fit(groups[reference])
    return {
        name: Distances(
            centre=float(np.linalg.norm(points - centre, axis=1).mean()),
            # Without an argument, scikit-learn leaves each point out of its own neighbours.
            nearest=float(
                index.kneighbors(None if name == reference else points, n_neighbors=1)[0].mean()
            ),
        )
        for name, points in groups.items()
    }


def _checked_groups(features: Mapping[str, Any], reference: str) -> dict[str, np.ndarray]:
    groups = {name: style.as_array(points).astype(np.float64) for name, points in features.items()}
    if reference not in groups:
        raise UsageError(
            f'features: found the groups {sorted(groups)}, expected one named "{reference}" '
            'from which distances are measured'
        )
    for name, points in groups.items():
        dimensions = groups[reference].shape[-1]
        if points.ndim != 2 or len(points) == 0 or points.shape[1] != dimensions:
            raise UsageError(
                f'features["{name}"]: found shape {points.shape}, expected (n, {dimensions}) '
                'with n of 1 or more, one row per image'
            )
        if not np.isfinite(points).all():
            raise UsageError(
                f'features["{name}"] holds NaN or infinite values: '
                'check the checkpoint the features were computed with'
            )
    every = np.concatenate(list(groups.values()))
    if len(every) < 4 or every.shape[1] < 2 or len(groups[reference]) < 2:
        raise UsageError(
            f'features: found {len(every)} points of {every.shape[1]} features, '
            f'{len(groups[reference])} of them in "{reference}"; expected 4 points or more of '
            f'2 features or more, 2 of them in "{reference}"'
        )
    if np.ptp(every, axis=0).max() == 0:
        raise UsageError(
            'features: all points are identical, so there is nothing to lay out; '
            'check the checkpoint the features were computed with'
        )
    return groups


def _embed(points: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Lays (n, D) points out in the plane, (n, 2); the same for any number of cores."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        if min(points.shape) > _MAX_DIMENSIONS:
            points = PCA(_MAX_DIMENSIONS, random_state=seed).fit_transform(points)
        layout = TSNE(
            init='pca',
            perplexity=min(perplexity, (len(points) - 1) / 3),
            random_state=seed,
        )
        return layout.fit_transform(points.astype(np.float32))


def plot_tsne(
    path: style.PathLike,
    features: Mapping[str, Any],
    seed: int = 0,
    perplexity: float = 30,
    reference: str = 'original',
    title: str = 'Which images the teacher finds alike',
) -> tuple[Path, dict[str, Distances]]:
    """Draws groups of feature vectors in the plane with t-SNE, and says how far each group lies.

    The layout keeps neighbours together but not distances; therefore each group's distance from
    the reference group is measured in the feature space itself and drawn beside.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        features: Feature vectors by group name, each (n_i, D); the names ``original``,
            ``selected`` and ``rejected`` have fixed colours. A few hundred rows each are plenty.
        seed: Seed of the layout and of the order of drawing.
        perplexity: Neighbours a point listens to; lowered to (n - 1) / 3 for n points in all.
        reference: Name of the group from which distances are measured.
        title: Heading of the figure.

    Returns:
        The path written, and by group name the mean distances of its points to the reference
        group's centroid and to its nearest point.

    Raises:
        UsageError: If groups do not fit together or hold too few, identical or non-finite points,
            or the file cannot be written.
    """
    groups = _checked_groups(features, reference)
    distances = distances_to(groups, reference)
    names = list(groups)
    spare = (colour for colour in style.CYCLE if colour not in (style.ORANGE, style.RED))
    colours = {name: _COLOURS.get(name) or next(spare, style.INK) for name in names}

    layout = _embed(np.concatenate(list(groups.values())), perplexity, seed)
    owner = np.repeat(np.arange(len(names)), [len(points) for points in groups.values()])

    height = max(620, 98 + 46 * len(names) + 30 + 2 * (44 + 22 * len(names)) + 16)
    with style.canvas(path, style.WIDTH, height) as figure:
        page = style.page_of(figure)
        style.draw_title(
            page,
            title,
            'Each mark is one image; neighbours have similar features (t-SNE, axes without unit).',
        )
        axes = style.axes_at(figure, 20, 76, 660, 524)
        axes.set(xticks=[], yticks=[], aspect='equal', adjustable='datalim')
        axes.spines[['top', 'right']].set_visible(True)
        # One random order for all marks, so that no group hides another.
        order = np.random.default_rng(seed).permutation(len(layout))
        for chunk in np.array_split(order, min(len(order), 12)):
            for group, name in enumerate(names):
                x, y = layout[chunk[owner[chunk] == group]].T
                axes.scatter(
                    x,
                    y,
                    s=26,
                    marker=_MARKERS.get(name, 'D'),
                    color=colours[name],
                    edgecolors=style.PAPER,
                    linewidths=0.5,
                )
        top = 98.0
        for name in names:
            marker = _MARKERS.get(name, 'D')
            page.scatter(708, top - 5, s=90, marker=marker, color=colours[name])
            style.write_fitting(page, 724, top, name, 14, 216, fontweight='bold')
            style.write(page, 724, top + 17, f'{len(groups[name]):,} images', 12, color=style.MUTED)
            top += 46
        top += 30
        style.write(page, 700, top, 'Mean distance in feature space', 13, fontweight='bold')
        for key, meaning in (
            ('nearest', f"to the nearest other '{reference}'"),
            ('centre', f"to the centre of '{reference}'"),
        ):
            top += 26
            style.write_fitting(page, 700, top, meaning, 11.5, 250, color=style.MUTED)
            values = {name: getattr(distances[name], key) for name in names}
            top = _draw_distances(page, top + 18, values, colours)
    return Path(path), distances


def _draw_distances(
    page: Axes, top: float, values: Mapping[str, float], colours: Mapping[str, str]
) -> float:
    """Draws one bar per group, the first one centred at ``top``; returns where the next goes."""
    longest = max(values.values()) or 1.0
    for name, value in values.items():
        length = 170 * value / longest
        page.barh(top, length, height=16, left=700, color=colours[name])
        style.write(page, 708 + length, top + 4.5, f'{value:.2f}', 12.5)
        top += 22
    return top
