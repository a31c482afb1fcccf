# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json

import numpy as np
import pytest

from mmdfkd.datasets.packing import cap_per_class, write_keep
from mmdfkd.utils import UsageError


def test_cap_keeps_the_surest_of_each_class():
    # Class 0 has images 0, 1, 2, 5 with margins 1, 3, 2, 3; class 1 has 3; class 2 has 4.
    logits = np.array(
        [[1, 0, 0], [3, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 9], [53, 50, 50]], np.float32
    )
    assert cap_per_class(logits, 1).tolist() == [1, 3, 4]  # of equals the first
    assert cap_per_class(logits, 2).tolist() == [1, 3, 4, 5]
    assert cap_per_class(logits, 3).tolist() == [1, 2, 3, 4, 5]
    assert cap_per_class(logits, 9).tolist() == [0, 1, 2, 3, 4, 5]
    assert cap_per_class(logits * 1e4, 9).tolist() == [0, 1, 2, 3, 4, 5]  # no overflow
    with pytest.raises(UsageError, match='cap of 0'):
        cap_per_class(logits, 0)


def test_write_keep(tmp_path):
    write_keep(tmp_path / 'keep.npy', np.array([1, 4]), {'why': 'test'})
    np.testing.assert_array_equal(np.load(tmp_path / 'keep.npy'), [1, 4])
    assert json.loads((tmp_path / 'keep.json').read_text()) == {'kept': 2, 'why': 'test'}
    with pytest.raises(UsageError, match='keep.npy exists already'):
        write_keep(tmp_path / 'keep.npy', np.array([1]), {})
    with pytest.raises(UsageError, match='no image at all'):
        write_keep(tmp_path / 'other.npy', np.array([], int), {})
    with pytest.raises(UsageError, match=r'keep\.v1 must end in \.npy'):
        write_keep(tmp_path / 'keep.v1', np.array([1]), {})
    (tmp_path / 'meta.json').write_text('of the pool')
    with pytest.raises(UsageError, match=r'meta\.json exists already'):
        write_keep(tmp_path / 'meta.npy', np.array([1]), {})
    assert (tmp_path / 'meta.json').read_text() == 'of the pool'
    assert not (tmp_path / 'meta.npy').exists()
