# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import numpy as np
import pytest
from PIL import Image

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_tsne, tsne


def _features(count=20, dimensions=8):
    draw = np.random.default_rng(0)
    return {
        name: draw.normal(shift, 1, (count, dimensions))
        for name, shift in (('original', 0), ('selected', 2), ('rejected', 6))
    }


def test_distances_of_a_square_by_hand(tmp_path):
    square = np.array([[0, 0], [2, 0], [0, 2], [2, 2]])
    path, distances = plot_tsne(
        tmp_path / 'tsne.png', {'original': square, 'selected': [[1, 1], [1, 4]], 'far': [[5, 4]]}
    )
    # The centre is (1, 1), each corner sqrt(2) from it and 2 from the next corner.
    assert distances['original'] == pytest.approx((math.sqrt(2), 2))
    # (1, 1): 0 and sqrt(2); (1, 4): 3 and, to (0, 2), sqrt(5).
    assert distances['selected'] == pytest.approx((1.5, (math.sqrt(2) + math.sqrt(5)) / 2))
    # (5, 4): 5 and, to (2, 2), sqrt(13).
    assert distances['far'] == pytest.approx((5, math.sqrt(13)))
    assert Image.open(path).size == (2 * 960, 2 * 620)


def test_same_seed_same_pixels(tmp_path):
    first, again, other = (
        np.asarray(Image.open(plot_tsne(tmp_path / f'{name}.png', _features(), seed=seed)[0]))
        for name, seed in (('first', 0), ('again', 0), ('other', 1))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_distances_are_those_of_features_not_of_the_layout(tmp_path):
    features = _features(dimensions=64)
    _, distances = plot_tsne(tmp_path / 'plain.png', features)
    _, scaled = plot_tsne(tmp_path / 'scaled.png', {k: 10 * v for k, v in features.items()})
    for name, distance in distances.items():
        assert np.allclose(scaled[name], 10 * np.array(distance))
    assert distances['rejected'].nearest > distances['selected'].nearest


def test_marks_and_bars_are_those_of_their_groups(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(tsne, '_embed', lambda points, perplexity, seed: points[:, :2])
    square = np.array([[0, 0], [2, 0], [0, 2], [2, 2]])
    groups = {'original': square, 'selected': [[1, 1], [1, 4]], 'rejected': [[5, 4]]}
    plot_tsne(tmp_path / 'tsne.png', groups)
    page, axes = drawn[0].axes
    assert axes.get_aspect() == 1
    colours = {}  # by name, from the legend
    names = [text for text in page.texts if text.get_text() in groups]
    for name, mark in zip(names, page.collections, strict=True):
        assert mark.get_offsets()[0, 1] == name.get_position()[1] - 5
        colours[name.get_text()] = tuple(mark.get_facecolor()[0])
    for name, points in groups.items():
        marks = [c for c in axes.collections if tuple(c.get_facecolor()[0]) == colours[name]]
        drawn_at = np.concatenate([mark.get_offsets() for mark in marks if len(mark.get_offsets())])
        assert sorted(drawn_at.tolist()) == sorted(np.asarray(points, float).tolist())
    said = [text.get_text() for text in page.texts]
    assert [text for text in said if text.endswith('images')] == [
        *('4 images', '2 images', '1 images')
    ]
    first = next(place for place, text in enumerate(said) if text.startswith('to the nearest'))
    assert said[first + 1 : first + 4] == ['2.00', '1.83', '3.61']
    assert said[first + 4] == "to the centre of 'original'"
    assert said[first + 5 :] == ['1.41', '1.50', '5.00']
    lengths = [bar.get_width() for bar in page.patches]
    assert lengths[:3] == pytest.approx([170 * d / 13**0.5 for d in (2, 1.8251, 13**0.5)], rel=1e-4)
    assert lengths[3:] == pytest.approx([34 * d for d in (2**0.5, 1.5, 5)])
    assert [bar.get_facecolor() for bar in page.patches] == 2 * list(colours.values())


def test_groups_can_be_told_apart(tmp_path, drawn, monkeypatch):
    """Each by its own colour, whatever its name, and where it has one by its own shape."""
    monkeypatch.setattr(tsne, '_embed', lambda points, perplexity, seed: points[:, :2])
    names = ['original', 'selected', 'rejected', 'noise', 'glyphs', 'generated']
    features = np.random.default_rng(0).normal(size=(6, 20, 2))
    plot_tsne(tmp_path / 'tsne.png', dict(zip(names, features, strict=True)))
    page, axes = drawn[0].axes

    def looks(shapes):
        return [(*s.get_facecolor()[0], s.get_paths()[0].vertices.tobytes()) for s in shapes]

    legend = looks(page.collections)
    assert len({look[:4] for look in legend}) == 6 and len({look[4] for look in legend}) == 4
    assert {*looks(axes.collections)} == {*legend}
    lowest = max(text.get_position()[1] for text in page.texts)
    assert lowest < page.get_ylim()[0]  # there is room for the distances of all
    # Drawn in turns, so that no group covers another.
    assert looks(axes.collections[:6]) == looks(axes.collections[-6:]) == legend


@pytest.mark.parametrize(('count', 'perplexity'), [(100, 30), (31, 10)])
def test_the_layout_is_asked_for_as_documented(monkeypatch, count, perplexity):
    asked = {}

    class Layout:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, points):
            asked['shape'] = points.shape
            return points[:, :2]

    monkeypatch.setattr('sklearn.manifold.TSNE', Layout)
    points = np.random.default_rng(0).normal(size=(count, 64))
    tsne._embed(points, 30, 7)
    dimensions = 50 if count > 50 else 64
    assert asked == dict(
        init='pca', perplexity=perplexity, random_state=7, shape=(count, dimensions)
    )


def test_groups_may_be_tiny_and_tensors(tmp_path):
    torch = pytest.importorskip('torch')
    groups = {'original': torch.eye(3).half(), 'selected': torch.ones(1, 3, requires_grad=True)}
    path, distances = plot_tsne(tmp_path / 'tsne.png', groups)
    assert path.exists() and list(distances) == ['original', 'selected']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(original=np.zeros((3, 8, 1))), r'original.*\(3, 8, 1\)'),
        (dict(selected=np.zeros((3, 7))), r'selected.*\(3, 7\)'),
        (dict(selected=np.zeros((0, 8))), r'selected.*\(0, 8\)'),
        (dict(rejected=np.full((3, 8), np.nan)), 'rejected.*NaN'),
        (dict(original=np.ones((1, 8))), '2 of them in "original"'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        plot_tsne(tmp_path / 'tsne.png', {**_features(), **change})
    assert not list(tmp_path.iterdir())


def test_reference_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="'a', 'b'.*original"):
        plot_tsne(tmp_path / 'tsne.png', {'a': np.eye(4), 'b': np.eye(4)})


def test_collapsed_features_are_called_so(tmp_path):
    with pytest.raises(UsageError, match='identical'):
        plot_tsne(tmp_path / 'tsne.png', {'original': np.ones((9, 4))})
