# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest

from mmdfkd.datasets.packed import array_sha256
from mmdfkd.datasets.row_view import RowView


@pytest.mark.parametrize(
    'key',
    [
        3,
        -1,
        slice(1, 4),
        slice(None, None, 2),
        [4, 0, 4],
        np.array([True, False] * 3),
        (slice(1, 3), ..., 0),
        (2, 1),
        (..., 1),
        (slice(None), None),
    ],
)
def test_reads_as_a_copy_of_the_rows_would(key):
    array = np.arange(10 * 3 * 2).reshape(10, 3, 2)
    rows = np.array([1, 2, 5, 7, 8, 9])
    view, copy = RowView(array, rows), array[rows]
    np.testing.assert_array_equal(view[key], copy[key])


def test_looks_as_a_copy_of_the_rows_would():
    array = np.arange(10 * 3, dtype=np.uint8).reshape(10, 3)
    view, copy = RowView(array, np.array([1, 5])), array[[1, 5]]
    facts = (len(view), view.shape, view.ndim, view.dtype, view.nbytes)
    assert facts == (2, (2, 3), 2, np.uint8, 6)
    np.testing.assert_array_equal(np.asarray(view), copy)
    assert np.asarray(view, dtype=float).dtype == float
    np.testing.assert_array_equal(view.take(np.array([1, 1])), copy[[1, 1]])
    assert array_sha256(view) == array_sha256(copy)
