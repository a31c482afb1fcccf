# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest

from mmdfkd.models.selectors import RandomSelector
from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils import UsageError


@pytest.mark.parametrize(
    ('settings', 'count'),
    [
        (dict(), 20),
        (dict(ratio=0.5), 10),
        (dict(ratio=0.34), 7),  # 6.8: to the nearest
        (dict(ratio=0.01), 1),
        (dict(num_images=7, ratio=0.1), 7),
    ],
)
def test_count(settings, count):
    selector = TASK_UTILS.build(dict(type='RandomSelector', **settings))
    indices = selector(pool_size=20, epoch=1, max_epochs=2).indices.tolist()
    assert len(set(indices)) == count
    assert indices == sorted(indices) and 0 <= indices[0] and indices[-1] < 20


def test_draws_anew_and_uniformly():
    selector = RandomSelector(ratio=0.25)
    hits = [0] * 8
    for _ in range(800):
        for index in selector(pool_size=8).indices.tolist():
            hits[index] += 1
    # 200 each expected, standard deviation sqrt(800 * 1/4 * 3/4) = 12.2
    assert sum(hits) == 1600 and all(abs(hit - 200) < 61 for hit in hits)


def test_answers_without_predictions():
    selection = RandomSelector(num_images=2)(pool_size=5)
    assert RandomSelector.needs == () and not RandomSelector.once
    assert selection.confidence.numel() == selection.counts.numel() == 0


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(ratio=0.0), r'selector\.ratio is 0\.0'),
        (dict(ratio=1.1), r'selector\.ratio'),
        (dict(num_images=0), r'selector\.num_images is 0'),
        (dict(num_images=-3), r'selector\.num_images is -3'),
        (dict(num_images=9), r'num_images asks for 9 images, the pool has 5'),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(UsageError, match=named):
        RandomSelector(**settings)(pool_size=5)
