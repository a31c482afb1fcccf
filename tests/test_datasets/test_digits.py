# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The original data of the embedded benchmark must never change."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mmdfkd.datasets import DigitsDataset
from mmdfkd.datasets.digits import split_indices
from mmdfkd.utils import UsageError


@pytest.fixture(scope='module')
def scans() -> np.ndarray:
    """The scans as scikit-learn ships them, (1797, 8, 8) with values 0 to 16."""
    return load_digits().images


@pytest.fixture(scope='module')
def split() -> tuple[np.ndarray, np.ndarray]:
    """The positions of training and test images."""
    return split_indices(load_digits().target)


def test_split_is_a_partition(split):
    train, test = split
    assert (len(train), len(test)) == (1297, 500)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))


def test_split_is_stratified(split):
    labels = load_digits().target
    exact = np.bincount(labels) * 500 / 1797
    assert np.abs(np.bincount(labels[split[1]]) - exact).max() < 1


def test_split_is_the_published_one(split):
    digest = hashlib.sha256(np.concatenate(split).astype('<i8').tobytes()).hexdigest()
    assert digest == '241b77c6251d6181124bb3bd0a38c2c628ff82cd2a24d87278716b317d0aa6e6'


def test_pixels_are_the_published_ones():
    assert DigitsDataset('train').content_hash == '0f7ce86e2e8eb30d'
    assert DigitsDataset('test').content_hash == '935553985d367203'
    assert DigitsDataset().content_hash == DigitsDataset('train').content_hash


@pytest.mark.parametrize(('split_name', 'part'), [('train', 0), ('test', 1)])
def test_images_match_pillow_bilinear(scans, split, split_name, part):
    dataset = DigitsDataset(split_name)
    assert dataset.images.shape == (len(split[part]), 32, 32, 1)
    for place in (0, 123, -1):
        scan = Image.fromarray((scans[split[part][place]] * 255 / 16).astype(np.float32))
        reference = np.asarray(scan.resize((32, 32), Image.Resampling.BILINEAR))
        image = dataset.images[place, ..., 0].astype(float)
        assert np.abs(image - reference).max() <= 0.5 + 1e-3  # rounding to whole numbers
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)


def test_labels_and_metainfo(split):
    dataset = DigitsDataset('test')
    np.testing.assert_array_equal(dataset.labels, load_digits().target[split[1]])
    assert dataset.metainfo == {'name': 'digits', 'classes': tuple('0123456789')}


def test_raw_scans_at_their_own_size(scans, split):
    dataset = DigitsDataset('train', image_size=8)
    np.testing.assert_array_equal(
        dataset.images[..., 0], np.rint(scans[split[0]] * 255 / 16).astype(np.uint8)
    )


def test_wrong_arguments():
    with pytest.raises(UsageError, match="split='val'.*'train' or 'test'"):
        DigitsDataset('val')
    with pytest.raises(UsageError, match='image_size=4'):
        DigitsDataset(image_size=4)
