# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import torch

from mmdfkd.utils.seeds import derive_seed


# Latents of finished runs hang on these numbers: they are numpy's, without their last bit.
def test_numpys_numbers():
    (word,) = np.random.SeedSequence([3, 5]).generate_state(1, np.uint64)
    assert derive_seed(3, 5) == int(word) // 2
    (word,) = np.random.SeedSequence([3, 5], spawn_key=(1,)).generate_state(1, np.uint64)
    assert derive_seed(3, 5, stream=1) == int(word) // 2


def test_every_number_their_order_and_the_stream_count():
    seeds = [derive_seed(3, 5), derive_seed(5, 3), derive_seed(3), derive_seed(3, 5, stream=1)]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        assert 0 <= seed < 2**63
        torch.manual_seed(seed)
