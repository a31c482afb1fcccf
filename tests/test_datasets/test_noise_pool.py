# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Noise pools: deterministic, unlabelled, and distributed as they say."""

import numpy as np
import pytest

from mmdfkd.datasets import NoisePool
from mmdfkd.utils import UsageError


@pytest.mark.parametrize('distribution', ['uniform', 'gaussian'])
def test_same_seed_same_pool(distribution):
    first, again, other = (
        NoisePool(1100, 8, 3, seed=seed, distribution=distribution) for seed in (1, 1, 2)
    )
    assert first.images.shape == (1100, 8, 8, 3)
    assert first.content_hash == again.content_hash != other.content_hash
    assert set(first.__getitems__([4, 2])) == {'inputs', 'index'}
    assert len(np.unique(first.images.reshape(1100, -1), axis=0)) == 1100


def test_uniform_moments():
    pixels = NoisePool(2000, 16).images.astype(float)
    # 0..255: mean 127.5, variance (256^2 - 1) / 12 = 5461.25, deviation 73.9; 512,000 pixels.
    assert abs(pixels.mean() - 127.5) < 5 * 73.9 / 512_000**0.5
    assert abs(pixels.std() - 73.9) < 0.3
    assert len(np.unique(pixels)) == 256


def test_gaussian_moments():
    pixels = NoisePool(2000, 16, distribution='gaussian').images.astype(float)
    assert abs(pixels.mean() - 127.5) < 0.5
    # P(|z| < 1) = 0.6827 for |x - 127.5| < 64; clipping at two deviations does not touch it.
    assert abs((np.abs(pixels - 127.5) < 64).mean() - 0.6827) < 0.004
    # P(z < -127 / 64) = P(z < -1.984) = 0.0236 rounds to 0 at either end.
    assert abs((pixels == 0).mean() - 0.0236) < 0.002
    assert abs((pixels == 255).mean() - 0.0236) < 0.002


def test_wrong_arguments():
    with pytest.raises(UsageError, match="distribution='salt'.*'uniform' or 'gaussian'"):
        NoisePool(1, distribution='salt')
    with pytest.raises(UsageError, match='num_images=0'):
        NoisePool(0)
