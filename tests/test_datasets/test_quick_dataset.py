# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest

from mmdfkd.datasets import DigitsDataset, NoisePool
from mmdfkd.registry import DATASETS

SPEC = dict(shape=(3, 8, 6), num_classes=4)


def quick(dataset, num_images=20, **spec):
    return DATASETS.build(
        dict(type='QuickDataset', dataset=dataset, num_images=num_images, **{**SPEC, **spec})
    )


def test_first_images_of_a_dataset():
    whole, few = DigitsDataset('test'), quick(dict(type='DigitsDataset', split='test'))
    assert len(few) == 20
    assert np.array_equal(few.images, whole.images[:20])
    assert few.labels.tolist() == whole.labels[:20].tolist()
    assert few.metainfo == whole.metainfo


def test_a_pool_stays_unlabelled_and_may_be_small():
    few = quick(dict(type='NoisePool', num_images=7, image_size=4))
    assert len(few) == 7 and few.labels is None
    assert np.array_equal(few.images, NoisePool(7, image_size=4).images)
    assert 'label' not in few.__getitems__([0])


@pytest.mark.parametrize(('missing', 'labelled'), [('ImagePool', False), ('DigitsDataset', True)])
def test_random_images_stand_in_for_what_is_missing(tmp_path, missing, labelled):
    config = dict(type=missing)
    config.update(dict(root=str(tmp_path / 'nowhere')) if not labelled else dict(split='none'))
    few = quick(config)
    assert few.images.shape == (20, 8, 6, 3) and few.images.std() > 60
    assert np.array_equal(few.images, quick(config).images)
    assert (few.labels is not None) == labelled
    if labelled:
        assert set(few.labels.tolist()) == {0, 1, 2, 3}
    assert few.metainfo['name'] == f'random images for {missing}'


def test_programming_errors_are_not_hidden():
    with pytest.raises(TypeError, match='nonsense'):
        quick(dict(type='NoisePool', num_images=7, nonsense=1))
