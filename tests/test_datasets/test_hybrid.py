# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch

from mmdfkd.datasets import (
    HybridBatchSampler,
    HybridDataset,
    HybridSampler,
    ImageBank,
    PackedDataset,
)
from mmdfkd.utils import UsageError


def packed(count, first=0, size=4):
    """Images that are all one number: their own."""
    images = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]
    return PackedDataset(np.broadcast_to(images, (count, size, size, 1)).copy())


@pytest.fixture
def dataset():
    return HybridDataset(packed(12), packed(20, first=100))


def test_batches_keep_the_order_asked_for(dataset):
    batch = dataset.__getitems__([31, 2, 12, 2, 13])
    assert batch['inputs'].shape == (5, 1, 4, 4)
    assert batch['inputs'][:, 0, 0, 0].tolist() == [119, 2, 100, 2, 101]
    assert batch['index'].tolist() == [31, 2, 12, 2, 13]
    assert batch['inputs'].is_contiguous(memory_format=torch.channels_last)
    assert dataset[12]['inputs'].unique().tolist() == [100]
    assert len(dataset) == 32


def test_labels_stay_behind():
    labelled = PackedDataset(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 2]))
    assert set(HybridDataset(labelled).__getitems__([0, 2])) == {'inputs', 'index'}


def test_its_name_says_what_it_is_made_of():
    pool = PackedDataset(np.zeros((3, 4, 4, 1), np.uint8), metainfo=dict(name='street'))
    assert HybridDataset(pool).metainfo['name'] == 'street'
    assert HybridDataset(pool, packed(2)).metainfo['name'] == 'street and synthetic images'


def test_sets_of_different_shape():
    with pytest.raises(UsageError, match='synthetic ones'):
        HybridDataset(packed(3), packed(3, size=8))
    with pytest.raises(UsageError, match='synthetic ones'):
        HybridDataset(packed(3), ImageBank('bank', shape=(1, 8, 8)))
    HybridDataset(packed(3), ImageBank('bank', shape=(1, 4, 4)))
    HybridDataset(packed(3), ImageBank())  # of which nobody has said anything yet


@pytest.mark.parametrize(('repeat', 'length', 'batches'), [(1, 23, 6), (10, 50, 13)])
def test_data_inflation(dataset, repeat, length, batches):
    """N n_r + n_s images: each collected one N times, each synthetic one once, every epoch."""
    sampler = HybridSampler(dataset, repeat=repeat, seed=0)
    sampler.select(torch.tensor([1, 5, 7]))
    assert len(sampler) == length
    assert len(HybridBatchSampler(sampler, batch_size=4)) == batches
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn = torch.cat(list(HybridBatchSampler(sampler, batch_size=4)))
        counts = drawn.bincount(minlength=32)
        assert counts[[1, 5, 7]].tolist() == [repeat] * 3
        assert counts[12:].tolist() == [1] * 20 and counts.sum() == length
        orders.append(drawn)
    assert not torch.equal(*orders)


def test_published_lengths(dataset):
    """3 of 12 files 10 times and 8 of 20, in batches of 4: 38 images in 10 batches."""
    small = HybridDataset(dataset.collected, packed(8))
    sampler = HybridSampler(small, seed=0)
    sampler.select(torch.tensor([3, 4, 0]))
    assert len(sampler) == 38 and len(HybridBatchSampler(sampler, batch_size=4)) == 10
    sampler.stage = 'gan'
    assert len(sampler) == 3  # in one pass


def test_passes_of_the_gan(dataset):
    """Whole permutations one after the other, in batches of their own size."""
    sampler = HybridSampler(dataset, repeat=10, passes=3, seed=0)
    sampler.select(torch.tensor([1, 5, 7, 9]))
    sampler.stage = 'gan'
    drawn = torch.tensor(list(sampler)).view(3, 4)
    assert all(sorted(row.tolist()) == [1, 5, 7, 9] for row in drawn)
    assert len({tuple(row.tolist()) for row in drawn}) > 1
    batches = HybridBatchSampler(sampler, batch_size=3, gan_batch_size=6)
    assert [len(batch) for batch in batches] == [6, 6]
    assert [len(batch) for batch in HybridBatchSampler(sampler, batch_size=3)] == [3, 3, 3, 3]
    sampler.stage = 'student'
    assert len(batches) == (40 + 20) // 3


def test_one_process_is_two(dataset, monkeypatch):
    whole = HybridSampler(dataset, repeat=2, seed=1).share()
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr('mmdfkd.datasets.samplers.get_dist_info', lambda rank=rank: (rank, 2))
        shares.append(HybridSampler(dataset, repeat=2, seed=1).share())
    assert torch.equal(torch.stack(shares, dim=1).flatten(), whole)


@pytest.mark.parametrize('stage', ['gan', 'student'])
def test_order_depends_on_seed_and_epoch_only(dataset, stage):
    def order(seed, epoch):
        sampler = HybridSampler(dataset, repeat=2, passes=2, seed=seed)
        sampler.stage = stage
        sampler.set_epoch(epoch)
        return tuple(sampler)

    torch.rand(1)
    assert order(1, 1) == order(1, 1)
    assert len({order(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_an_uneven_epoch_gives_equal_shares(dataset, monkeypatch):
    """3 images and 20: of 23 each of two ranks takes 12, so that one image comes twice."""
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr('mmdfkd.datasets.samplers.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = HybridSampler(dataset, repeat=1, seed=0)
        sampler.select(torch.tensor([1, 5, 7]))
        assert len(sampler) == len(sampler.share()) == 12
        drawn += sampler
    assert sorted({*drawn}) == [1, 5, 7, *range(12, 32)]


def test_nothing_to_learn_from():
    sampler = HybridSampler(HybridDataset(packed(3)), repeat=0, seed=0)
    with pytest.raises(UsageError, match=r'sampler\.repeat is 0'):
        sampler.share()


@pytest.mark.parametrize('options', [dict(repeat=-1), dict(passes=0)])
def test_mistakes(dataset, options):
    with pytest.raises(UsageError, match=f'train_dataloader.sampler.{next(iter(options))} is'):
        HybridSampler(dataset, **options)
