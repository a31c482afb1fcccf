# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_matrix, style


def _pixels(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def _where(pixels, colour):
    """Rows and columns of the pixels of exactly this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((pixels == rgb).all(axis=-1))


def _matrix(classes, row, column):
    matrix = np.full((classes, classes), 0.01)
    matrix[row, column] = 0.2
    np.fill_diagonal(matrix, 0.9)
    return matrix


def test_rows_are_rows(tmp_path):
    """The one large entry is where the matrix has it, not mirrored."""
    pixels = _pixels(plot_matrix(tmp_path / 'a.png', _matrix(4, 0, 3), 'abcd', 'title'))
    assert pixels.shape[1] == 2 * 960
    grey_rows, grey_columns = _where(pixels, style.FAINT)
    rows, columns = _where(pixels, style.BLUE)
    inside = columns < grey_columns.max() + 4  # beyond it is the scale
    assert inside.sum() > 50_000
    assert rows[inside].mean() < np.median(grey_rows)  # the first row: at the top
    assert columns[inside].mean() > np.median(grey_columns)  # the last column: at the right


def test_a_tensor_is_drawn_like_an_array(tmp_path):
    matrix = _matrix(3, 1, 0)
    first = _pixels(plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title'))
    again = torch.from_numpy(matrix).requires_grad_()
    assert np.array_equal(first, _pixels(plot_matrix(tmp_path / 'b.png', again, 'abc', 'title')))


def test_few_classes_have_numbers_and_many_have_some_names(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    written = []
    plain = Axes.text

    def text(axes, x, y, words, *args, **kwargs):
        written.append(words)
        return plain(axes, x, y, words, *args, **kwargs)

    monkeypatch.setattr(Axes, 'text', text)
    plot_matrix(tmp_path / 'few.png', _matrix(4, 0, 3), 'abcd', 'title')
    assert written.count('90.0') == 4 and written.count('20.0') == 1 and written.count('1.0') == 11
    written.clear()
    path = plot_matrix(tmp_path / 'many.png', _matrix(100, 0, 3), [f'c{i}' for i in range(100)], '')
    assert '90.0' not in written and path.exists()


@pytest.mark.parametrize('matrix', [np.eye(3), np.full((3, 3), 1 / 3)])
def test_a_matrix_without_differences_is_drawn(tmp_path, matrix):
    assert plot_matrix(tmp_path / 'a.png', matrix, ['one', 'two', 'three'], 'title').exists()


@pytest.mark.parametrize(
    ('matrix', 'named'),
    [
        (np.eye(2), r'shape \(2, 2\), expected \(3, 3\)'),
        (np.eye(3)[:2], r'shape \(2, 3\)'),
        (2 * np.eye(3), r'outside \[0, 1\]'),
        (np.full((3, 3), np.nan), r'outside \[0, 1\]'),
    ],
)
def test_wrong_matrices_are_named(tmp_path, matrix, named):
    with pytest.raises(UsageError, match=named):
        plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title')
    assert not (tmp_path / 'a.png').exists()
