# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest

from mmdfkd.datasets.packing import Source, blend_digits
from mmdfkd.utils import UsageError

from .conftest import encode, write_folder


@pytest.fixture
def digits():
    digits = np.zeros((50, 8, 8, 1), np.uint8)
    digits[:, 2:6, 3:5] = 255
    digits[:, 2, 3] = 100
    return digits


def test_blends_by_absolute_difference(tmp_path, digits):
    # |0 - 30| = 30 off the digit, |255 - 30| = 225 on it, |100 - 30| = 70 on its soft edge
    photo = np.full((20, 30, 3), (30, 60, 130), np.uint8)
    source = Source(write_folder(tmp_path, {'photo.png': encode(photo)}))
    blended = blend_digits(digits, source)
    assert blended.shape == (50, 8, 8, 3)
    np.testing.assert_array_equal(blended[:, 0, 0], np.full((50, 3), (30, 60, 130)))
    np.testing.assert_array_equal(blended[:, 3, 3], np.full((50, 3), (225, 195, 125)))
    np.testing.assert_array_equal(blended[:, 2, 3], np.full((50, 3), (70, 40, 30)))
    # luma of the patch: 0.299 * 30 + 0.587 * 60 + 0.114 * 130 = 59.0
    grey = blend_digits(digits, source, grey=True)
    assert grey.shape == (50, 8, 8, 1) and (grey[:, 0, 0] == 59).all()


def test_patches_come_from_everywhere(tmp_path, digits):
    ramp = np.tile(np.arange(40, dtype=np.uint8), (12, 1))
    files = {'a.png': encode(ramp), 'b.png': encode(ramp + 100), 'c.png': encode(ramp[:7])}
    source = Source(write_folder(tmp_path, {**files, 'broken.png': b'', 'd.png': encode(ramp[:8])}))
    corners = blend_digits(np.tile(digits, (20, 1, 1, 1)), source)[:, 0, 0, 0].astype(int)
    lefts = {photo: set(corners[(corners >= 100) == photo] % 100) for photo in (False, True)}
    assert lefts[True] == set(range(33))  # 40 - 8 + 1 places
    assert lefts[False] == set(range(33))
    # a and d begin alike: two of three photographs, and the one with 7 rows is not used
    assert 0.6 < (corners < 100).mean() < 0.73
    again = blend_digits(digits, source)
    np.testing.assert_array_equal(again, blend_digits(digits, source))
    assert (again != blend_digits(digits, source, seed=1)).any()


def test_photographs_must_be_large_enough(tmp_path, digits):
    write_folder(tmp_path, {'a.png': encode(np.zeros((7, 30, 3), np.uint8))})
    with pytest.raises(UsageError, match='no photograph of at least 8 x 8'):
        blend_digits(digits, Source(tmp_path))
    with pytest.raises(UsageError, match='expected uint8'):
        blend_digits(digits[..., 0], Source(tmp_path))
