# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch

from mmdfkd.utils import UsageError
from mmdfkd.visualization import confusion_matrix, plot_confusion, style

# Of four 0s three are right and one is taken for a 2; the only 1 is right; both 2s are taken for
# 0s; there is no 3.
LABELS, PREDICTIONS = [0, 0, 0, 0, 1, 2, 2], [0, 2, 0, 0, 1, 0, 0]
SHARES = [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [1, 0, 0, 0], [np.nan] * 4]


@pytest.fixture
def told(tmp_path, drawn):
    """Draw, and return the lines under the heading."""

    def draw(labels, predictions, names):
        plot_confusion(tmp_path / 'a.png', labels, predictions, names)
        texts = [text.get_text() for text in drawn[-1].axes[0].texts]
        assert texts[0] == 'What the student takes for what'
        return texts[1:3]

    return draw


def test_by_hand():
    np.testing.assert_array_equal(confusion_matrix(LABELS, PREDICTIONS, 4), SHARES)


def test_rows_are_shares():
    draw = np.random.default_rng(0)
    labels, predictions = draw.integers(0, 7, (2, 500))
    matrix = confusion_matrix(labels, predictions, 7)
    np.testing.assert_allclose(matrix.sum(1), 1)
    counts = np.bincount(labels, minlength=7)
    np.testing.assert_allclose(matrix.T @ counts, np.bincount(predictions, minlength=7))
    order = draw.permutation(500)
    again = confusion_matrix(torch.tensor(labels)[order], torch.tensor(predictions)[order], 7)
    np.testing.assert_array_equal(again, matrix)


def test_what_is_drawn(tmp_path, drawn):
    plot_confusion(tmp_path / 'a.png', LABELS, PREDICTIONS, 'abcd')
    page, axes, _ = drawn[0].axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(cells) == 12 and cells[2, 0] == '25.0' and cells[0, 2] == '100.0'  # (column, row)
    texts = [text.get_text() for text in page.texts]
    assert 'true class ↓' in texts and 'prediction →' in texts


def test_what_is_told(told):
    first, second = told(LABELS, PREDICTIONS, 'abcd')
    assert first.endswith('empty rows: no test image (1 of 4 classes).')
    assert second == 'Most often: c as a (100.0), a as c (25.0).'
    first, second = told([0, 1], [0, 1], 'ab')
    assert 'empty' not in first and second == 'No image is taken for another class.'


def test_a_thousand_classes(told, drawn):
    names = [f'n{label:08d}, also known as something' for label in range(1000)]
    labels = np.arange(1000).repeat(3)
    predictions = np.where(np.arange(3000) % 3, labels, (labels + 1) % 1000)
    _, second = told(labels, predictions, names)
    assert second.startswith('Most often: n00000000, al… as n00000001, al… (33.3), ')
    page, axes, _ = drawn[-1].axes
    assert all(text.get_window_extent().x1 < style.WIDTH for text in page.texts)
    assert not axes.texts and len(axes.get_xticklabels()) == 40


@pytest.mark.parametrize(
    ('labels', 'predictions', 'words'),
    [
        ([0, 4], [0, 1], 'labels: found int64 values from 0 to 4'),
        ([0, 1], [0, -1], 'predictions: found int64 values from -1 to 0'),
        ([0, 1], [0], 'predictions: found shape'),
        ([], [], 'found 0 images'),
    ],
)
def test_what_does_not_fit(tmp_path, labels, predictions, words):
    with pytest.raises(UsageError, match=words):
        plot_confusion(tmp_path / 'a.png', labels, predictions, 'abcd')
    assert not (tmp_path / 'a.png').exists()
