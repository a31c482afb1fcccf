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


def test_numbers_names_and_scale_are_those_of_the_entries(tmp_path, drawn):
    matrix = np.array([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.02, 0.28, 0.7]])
    plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title', rows='truth', columns='guess')
    page, axes, scale = drawn[0].axes
    cells = {text.get_position(): text for text in axes.texts}
    assert len(cells) == 9
    for (row, column), value in np.ndenumerate(matrix):
        assert cells[column, row].get_text() == f'{100 * value:.1f}'
    colours = {place: cell.get_color() for place, cell in cells.items()}
    assert colours.pop((1, 2)) == style.PAPER  # on the darkest of all
    assert set(colours.values()) == {style.INK}
    assert [label.get_text() for label in axes.get_xticklabels()] == list('abc')
    assert [label.get_text() for label in axes.get_yticklabels()] == list('abc')
    texts = {text.get_text(): text.get_position()[0] for text in page.texts}
    assert texts['truth ↓'] < texts['guess →'] and 'on it: 70.0 to 90.0 %' in texts
    image = axes.images[0]
    assert image.get_clim() == (0.02, 0.28) and np.ma.getmaskarray(image.get_array()).trace() == 3
    (bar,) = scale.images
    assert bar.get_extent() == pytest.approx([0, 1, 2, 28])  # percent
    assert (bar.get_array()[0], bar.get_array()[-1]) == (0.28, 0.02)  # the highest on top


def test_small_entries_have_two_digits_and_like_ones_one_scale_from_zero(tmp_path, drawn):
    matrix = np.full((3, 3), 0.004) + np.diag([0.988] * 3)
    plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title')
    axes = drawn[0].axes[1]
    assert {text.get_text() for text in axes.texts} == {'99.2', '0.40'}
    assert axes.images[0].get_clim() == pytest.approx((0, 0.004))


def test_of_many_classes_every_nth_is_named_at_its_place(tmp_path, drawn):
    names = [f'c{label}' for label in range(50)]
    plot_matrix(tmp_path / 'a.png', _matrix(50, 0, 3), names, 'title')
    axes = drawn[0].axes[1]
    for axis in (axes.xaxis, axes.yaxis):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        assert labels == names[::2] and axis.get_ticklocs().tolist() == list(range(0, 50, 2))


def test_a_row_without_numbers_stays_empty(tmp_path, drawn):
    matrix = np.array([[0.9, 0.06, 0.04], [np.nan] * 3, [0.02, 0.28, 0.7]])
    plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title')
    page, axes, _ = drawn[0].axes
    assert {text.get_position()[1] for text in axes.texts} == {0, 2} and len(axes.texts) == 6
    colours, diagonal = (image.get_array() for image in axes.images)
    assert np.ma.getmaskarray(colours)[1].all() and axes.images[0].get_clim() == (0.02, 0.28)
    assert np.ma.getmaskarray(diagonal).diagonal().tolist() == [False, True, False]
    assert 'on it: 70.0 to 90.0 %' in [text.get_text() for text in page.texts]


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
        (np.where(np.eye(3) > 0, np.nan, 0.5), r'outside \[0, 1\]'),
    ],
)
def test_wrong_matrices_are_named(tmp_path, matrix, named):
    with pytest.raises(UsageError, match=named):
        plot_matrix(tmp_path / 'a.png', matrix, 'abc', 'title')
    assert not (tmp_path / 'a.png').exists()
