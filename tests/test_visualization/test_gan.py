# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import numpy as np
import pytest

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_gan, style
from mmdfkd.visualization.gan import divergence_from_uniform


def test_divergence_by_hand():
    """All in one of four: ln 4; half and half of two: 0; three to one: by the definition."""
    assert divergence_from_uniform(np.array([7, 0, 0, 0])) == pytest.approx(math.log(4))
    assert divergence_from_uniform(np.array([5, 5])) == pytest.approx(0)
    assert divergence_from_uniform(np.array([20] * 5)) == 0  # not -0.000
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence_from_uniform(np.array([3, 1])) == pytest.approx(expected)


@pytest.mark.parametrize('classes', [3, 30])
def test_picture(tmp_path, classes):
    from matplotlib.image import imread

    scores = np.array([[0.5, 0.2, -0.5], [1.0, np.nan, -1.0]])
    counts = {'pool': np.arange(classes), 'collected': np.ones(classes)}
    names = [str(label) for label in range(classes)]
    path = plot_gan(tmp_path / 'gan.png', np.array([1, 2]), scores, names, counts)
    picture = imread(path)
    assert picture.shape[1] == 2 * 960 and picture.std() > 0.05


def test_a_gan_that_gave_no_number_is_drawn_without_scores(tmp_path):
    plot_gan(tmp_path / 'gan.png', [1, 2], np.full((2, 3), np.nan), ['a', 'b'], {'pool': [3, 1]})
    assert (tmp_path / 'gan.png').exists()


SCORES = np.array([[0.5, 0.2, -0.5], [1.0, 0.3, -1.0]])


def test_scores_have_the_names_and_colours_of_their_images(tmp_path, drawn):
    plot_gan(tmp_path / 'gan.png', np.array([3, 4]), SCORES, ['a', 'b'], {'pool': np.ones(2)})
    axes = drawn[0].axes[1]
    zero, *lines = (line for line in axes.lines if line.get_transform() != axes.transAxes)
    assert zero.get_ydata() == [0, 0]
    curves = {line.get_color(): line.get_xydata().tolist() for line in lines[::2]}
    assert curves == {
        style.BLUE: [[3, 0.5], [4, 1.0]],
        style.SKY: [[3, 0.2], [4, 0.3]],
        style.ORANGE: [[3, -0.5], [4, -1.0]],
    }
    tags = [text.get_text().replace('\n', ' ') for text in axes.texts]
    values = ('1.00', '0.30', '-1.00')
    named = ['collected, learned from', 'collected, held out', 'generated']
    assert tags == [part for pair in zip(values, named, strict=True) for part in pair]


def test_shares_are_percentages_side_by_side(tmp_path, drawn):
    counts = {'pool': np.array([3, 1]), 'collected': np.array([5, 5])}
    plot_gan(tmp_path / 'gan.png', np.array([1, 2]), SCORES, ['a', 'b'], counts)
    axes = drawn[0].axes[2]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[75, 25], [50, 50]]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    flat = [edge for pair in edges for edge in pair]
    assert flat == pytest.approx([-0.4, 0, 0, 0.4, 0.6, 1, 1, 1.4])  # around 0 and 1
    assert [bars[0].get_x() for bars in axes.containers] == pytest.approx([-0.4, 0])
    (uniform,) = axes.lines
    assert uniform.get_ydata() == [50, 50]
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    legend = axes.get_legend()
    texts = {text.get_text() for text in legend.get_texts()}
    assert texts == {f'pool: KL {kl:.3f}', 'collected: KL 0.000', 'uniform'}
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 2


def test_many_classes_fall_from_the_most_frequent_one(tmp_path, drawn):
    counts = {'pool': np.roll(np.arange(30), 7), 'collected': np.ones(30)}
    names = [str(label) for label in range(30)]
    plot_gan(tmp_path / 'gan.png', np.array([1, 2]), SCORES, names, counts)
    pool, collected, uniform = drawn[0].axes[2].lines
    assert pool.get_ydata() == pytest.approx(100 * np.arange(30)[::-1] / 435)
    assert collected.get_ydata() == pytest.approx([100 / 30] * 30)
    assert uniform.get_ydata() == pytest.approx([100 / 30] * 2)


def test_a_curve_with_a_gap_stays_and_one_without_any_number_goes(tmp_path, drawn):
    gap, none = [0.5, np.nan, 0.7, 0.6], [np.nan] * 4
    scores = np.array([gap, none, [-0.5, -0.6, -0.7, -0.8]]).T
    plot_gan(tmp_path / 'gan.png', np.arange(1, 5), scores, ['a', 'b'], {'pool': np.ones(2)})
    texts = [text.get_text() for text in drawn[0].axes[1].texts]
    assert texts == ['0.60', 'collected, learned\nfrom', '-0.80', 'generated']


@pytest.mark.parametrize(
    ('names', 'last'),
    [
        (['airplane', 'automobile', *'abcdefgh'], 'automobile'),  # CIFAR-10
        ([f'aquarium_fish_{label:02}' for label in range(20)], 'aquarium_fish_01'),
        ([f'a_long_class_name_{label:02}' for label in range(15)], 'a_long_class_na…'),
    ],
)
def test_names_of_classes_stand_clear_of_each_other(tmp_path, drawn, names, last):
    counts = {'pool': np.arange(len(names))}
    plot_gan(tmp_path / 'gan.png', np.arange(1, 3), np.zeros((2, 3)), names, counts)
    labels = drawn[0].axes[2].get_xticklabels()
    assert len(labels) == len(names) and labels[1].get_text() == last
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    assert min(box.y0 for box in boxes) > 0  # within the page


def test_scores_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match='expected \\(2, 3\\)'):
        plot_gan(tmp_path / 'gan.png', np.array([1, 2]), np.zeros((2, 2)), ['0', '1'], {})
