# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math
from unittest import mock

import numpy as np
import pytest
import torch

from mmdfkd.datasets import CountingSampler, EvenBatchSampler, LatentDataset, whole_batch_collate
from mmdfkd.utils import UsageError


@pytest.fixture
def latents():
    return LatentDataset(length=24, shape=(2, 3), seed=5)


def batches(dataset, batch_size, epochs, rank=0, processes=1, first=0):
    """Numbers of the batches of some epochs, one list per epoch."""
    with mock.patch('mmdfkd.datasets.samplers.get_dist_info', lambda: (rank, processes)):
        sampler = CountingSampler(dataset)
    loader = EvenBatchSampler(sampler, batch_size)
    found = []
    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)
        found.append([batch.tolist() for batch in loader])
    return found


# The sequence ---------------------------------------------------------------------------------


def test_items(latents):
    batch = latents.__getitems__([3, 1])
    assert batch['latent'].shape == (2, 2, 3) and batch['latent'].dtype == torch.float32
    assert batch['index'].tolist() == [3, 1] and batch['index'].dtype == torch.int64
    item = latents[3]
    assert torch.equal(item['latent'], batch['latent'][0]) and item['index'] == 3
    assert len(latents) == 24
    assert whole_batch_collate(batch) is batch


def test_a_number_has_one_latent(latents):
    """However they are asked for: alone, together, in any order, far beyond the length."""
    numbers = [0, 63, 64, 65, 127, 128, 10**6, 10**12]
    together = latents.__getitems__(numbers)['latent']
    shuffled = latents.__getitems__(torch.tensor(numbers[::-1]))['latent'].flip(0)
    assert torch.equal(together, shuffled)
    for number, latent in zip(numbers, together, strict=True):
        assert torch.equal(latents[number]['latent'], latent)
    assert torch.equal(latents.__getitems__([5, 5])['latent'].diff(dim=0), torch.zeros(1, 2, 3))


def test_another_number_or_seed_has_another_latent(latents):
    many = latents.__getitems__(np.arange(1000))['latent'].flatten(1)
    assert len(torch.unique(many, dim=0)) == 1000
    other = LatentDataset(length=24, shape=(2, 3), seed=6).__getitems__(np.arange(1000))
    assert not (other['latent'].flatten(1) == many).any()


def test_latents_are_standard_normal():
    """Means and variances of 64,000 numbers, within four standard errors; neighbours and blocks
    have nothing to do with each other."""
    many = LatentDataset(length=1, shape=(1, 4)).__getitems__(np.arange(16000))['latent'][:, 0]
    assert many.mean(0).abs().max() < 4 / math.sqrt(16000)
    assert (many.var(0) - 1).abs().max() < 4 * math.sqrt(2 / 16000)
    assert (many[1:] * many[:-1]).mean(0).abs().max() < 4 / math.sqrt(16000)
    assert (many[64:] * many[:-64]).mean(0).abs().max() < 4 / math.sqrt(16000)
    assert (many.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.01)


def test_no_generator_is_touched(latents):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    latents.__getitems__([1, 2, 300])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()


# Who gets which number ------------------------------------------------------------------------


def test_epochs_count_on(latents):
    first, second = batches(latents, 8, epochs=2)
    assert first == [[*range(8)], [*range(8, 16)], [*range(16, 24)]]
    assert sum(second, []) == [*range(24, 48)]


def test_batch_size_does_not_matter(latents):
    runs = [sum(sum(batches(latents, size, epochs=3), []), []) for size in (4, 8, 24)]
    assert runs[0] == runs[1] == runs[2] == [*range(72)]


def test_processes_share_what_one_has_alone(latents):
    """Batch b of all ranks together is batch b of one process with as large a batch."""
    alone = batches(latents, 8, epochs=2)
    ranks = [batches(latents, 4, epochs=2, rank=rank, processes=2) for rank in (0, 1)]
    for epoch, expected in enumerate(alone):
        together = [sorted(a + b) for a, b in zip(ranks[0][epoch], ranks[1][epoch], strict=True)]
        assert together == expected
    assert ranks[0][0][0] == [0, 2, 4, 6]


def test_a_resumed_run_goes_on(latents):
    assert batches(latents, 8, epochs=4, first=2) == batches(latents, 8, epochs=4)[2:]


def test_an_uneven_length_gives_even_batches():
    found = batches(LatentDataset(length=10, shape=(1, 2)), 4, epochs=1)
    assert found == [[[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]]


# Mistakes -------------------------------------------------------------------------------------


def test_nobody_said_the_shape():
    with pytest.raises(UsageError, match=r'does not know the shape.*algorithm has no generator'):
        LatentDataset(length=8)[0]


@pytest.mark.parametrize('length', [0, -3])
def test_no_latents(length):
    with pytest.raises(UsageError, match=rf'dataset\.length is {length}; give 1 or more'):
        LatentDataset(length=length, shape=(1, 2))
