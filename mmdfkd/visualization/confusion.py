# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Which classes a network takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import style
from .matrix import plot_matrix

_LISTED, _LETTERS = 3, 14  # most confusions, and letters of a name, that fit into a line


def confusion_matrix(labels: Any, predictions: Any, num_classes: int) -> np.ndarray:
    """Counts how often each class is taken for each.

    Args:
        labels: True classes, integers in [0, K), (N,).
        predictions: Predicted classes, likewise.
        num_classes: K.

    Returns:
        (K, K); in row i, of the images of class i, the share predicted as each class. Rows sum to
        1; a row of a class without an image is NaN.

    Raises:
        UsageError: If they are no such classes.
    """
    truth = style.as_array(labels)
    truth = style.checked_classes(truth, len(truth), num_classes, 'labels')
    taken = style.checked_classes(predictions, len(truth), num_classes, 'predictions')
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (truth, taken), 1)
    images = counts.sum(axis=1, keepdims=True)
    return np.where(images > 0, counts / images.clip(min=1), np.nan)


def plot_confusion(
    path: style.PathLike,
    labels: Any,
    predictions: Any,
    classes: Sequence[str],
    title: str = 'What the student takes for what',
) -> Path:
    """Draws the shares of :func:`confusion_matrix`, and names the largest off the diagonal.

    Args:
        path: The PNG file to write, 960 page pixels wide.
        labels: True classes, integers in [0, K), (N,).
        predictions: Predicted classes, likewise.
        classes: Names of the K classes, 2 or more.
        title: Heading of the figure.

    Returns:
        The path written.

    Raises:
        UsageError: If they are no such classes, or the file cannot be written.
    """
    matrix = confusion_matrix(labels, predictions, len(classes))
    note = 'The share, in %, of the test images of a class (row) that is predicted as each class'
    absent = int(np.isnan(matrix[:, 0]).sum())
    if absent:
        note += f'; empty rows: no test image ({absent:,} of {len(classes):,} classes)'
    lines = (f'{note}.', _largest(matrix, classes))
    return plot_matrix(path, matrix, classes, title, '\n'.join(lines), columns='prediction')


def _largest(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """The largest entries off the diagonal, in words."""
    shares = np.nan_to_num(matrix) * (1 - np.eye(len(matrix)))
    places = np.argsort(-shares, axis=None, kind='stable')[:_LISTED]
    found = []
    for truth, taken in zip(*np.unravel_index(places, shares.shape), strict=True):
        names = [style.shorten(str(classes[label]), _LETTERS) for label in (truth, taken)]
        if shares[truth, taken] > 0:
            found.append(f'{names[0]} as {names[1]} ({100 * shares[truth, taken]:.1f})')
    return f'Most often: {", ".join(found)}.' if found else 'No image is taken for another class.'
