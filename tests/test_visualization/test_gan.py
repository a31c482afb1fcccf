# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import numpy as np
import pytest

from mmdfkd.utils import UsageError
from mmdfkd.visualization import plot_gan
from mmdfkd.visualization.gan import divergence_from_uniform


def test_divergence_by_hand():
    """All in one of four: ln 4; half and half of two: 0; three to one: by the definition."""
    assert divergence_from_uniform(np.array([7, 0, 0, 0])) == pytest.approx(math.log(4))
    assert divergence_from_uniform(np.array([5, 5])) == pytest.approx(0)
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


def test_scores_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match='expected \\(2, 3\\)'):
        plot_gan(tmp_path / 'gan.png', np.array([1, 2]), np.zeros((2, 2)), ['0', '1'], {})
