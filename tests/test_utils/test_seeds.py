# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch

from mmdfkd.utils import UsageError
from mmdfkd.utils.seeds import check_seed, derive_seed, random_numbers_apart


# Latents of finished runs hang on these numbers: they are numpy's, without their last bit.
def test_numpys_numbers():
    (word,) = np.random.SeedSequence([3, 5]).generate_state(1, np.uint64)
    assert derive_seed(3, 5) == int(word) // 2
    (word,) = np.random.SeedSequence([3, 5], spawn_key=(1,)).generate_state(1, np.uint64)
    assert derive_seed(3, 5, stream=1) == int(word) // 2


def test_every_number_their_order_and_the_stream_count():
    streams = [derive_seed(3, 5, stream=stream) for stream in (None, 0, 1)]
    seeds = [*streams, derive_seed(5, 3), derive_seed(3)]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        assert 0 <= seed < 2**63
        torch.manual_seed(seed)


def test_draws_apart_leave_no_trace():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    begun = torch.rand(2)
    with random_numbers_apart():
        inside = torch.rand(2)
        torch.manual_seed(7)
        torch.rand(3)
    assert torch.equal(torch.cat([begun, torch.rand(2)]), expected)
    assert torch.equal(inside, expected[2:])  # they begin with what would have come


@pytest.mark.parametrize('seed', [None, 0, 2**32 - 1, np.int64(3)])
def test_seeds(seed):
    check_seed('seed', seed)


@pytest.mark.parametrize('seed', [-1, 2**32, 1.5, '1', [1]])
def test_what_is_no_seed(seed):
    with pytest.raises(UsageError, match=r'randomness\.seed is .*; give a whole number from 0'):
        check_seed('randomness.seed', seed)
