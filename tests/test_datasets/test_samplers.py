# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch.utils.data import DataLoader

from mmdfkd.datasets import NoisePool, samplers, whole_batch_collate
from mmdfkd.datasets.samplers import BankSampler, EvenBatchSampler, SelectionSampler
from mmdfkd.registry import DATA_SAMPLERS
from mmdfkd.utils import UsageError


@pytest.fixture
def on_rank(monkeypatch):
    """A sampler as rank ``rank`` of ``world`` builds it."""

    def build(rank, world, count, **kwargs):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world))
        return SelectionSampler(range(count), **{'seed': 3, **kwargs})

    return build


def test_everything_counts_until_something_is_selected():
    sampler = SelectionSampler(range(50), seed=0)
    assert sorted(sampler) == list(range(50)) and len(sampler) == 50
    sampler.select(torch.tensor([3, 7, 20]))
    assert sorted(sampler) == [3, 7, 20] and len(sampler) == 3
    sampler.select(torch.tensor([1, 2]))
    assert sorted(sampler) == [1, 2]


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = SelectionSampler(range(50), seed=seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(17 * seed + epoch + int(torch.rand(1) * 1000))
        return list(sampler)

    assert order(1, 1) == order(1, 1)
    orders = [order(seed, epoch) for seed, epoch in ((1, 1), (1, 2), (7, 1))]
    assert len({tuple(o) for o in orders}) == 3
    assert list(SelectionSampler(range(5), shuffle=False)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('world', [1, 2, 3, 4])
@pytest.mark.parametrize('count', [24, 25, 26])
def test_ranks_share_the_selection(on_rank, world, count):
    selected = torch.randperm(100)[:count].sort().values
    shares = []
    for rank in range(world):
        sampler = on_rank(rank, world, 100)
        sampler.select(selected)
        sampler.set_epoch(5)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == -(-count // world)
    together = sum(shares, [])
    assert set(together) == set(selected.tolist())
    # disjoint but for what makes them equally long
    assert len(together) - len(set(together)) == -count % world


@pytest.mark.parametrize('world', [3, 8])
def test_fewer_images_than_ranks_still_give_equal_shares(on_rank, world):
    for rank in range(world):
        sampler = on_rank(rank, world, 100)
        sampler.select(torch.tensor([42, 43]))
        assert len(list(sampler)) == len(sampler) == 1


@pytest.mark.parametrize(
    ('world', 'count', 'batch'),
    [(1, 33, 16), (1, 1, 16), (2, 33, 16), (2, 2, 16), (4, 1, 8), (3, 13, 2), (1, 3, 2)],
)
def test_no_batch_of_one(on_rank, world, count, batch):
    sampler = on_rank(0, world, 100)
    sampler.select(torch.arange(count), batch)
    sizes = [len(part) for part in EvenBatchSampler(sampler, batch)]
    plain = torch.arange(len(sampler)).split(batch)
    assert min(sizes) > 1 and min(len(part) for part in plain) > 1
    assert set(sampler) <= set(range(count))


def test_a_batch_size_of_one_is_left_alone():
    sampler = SelectionSampler(range(9), seed=0)
    sampler.select(torch.arange(5), 1)
    assert sorted(sampler) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('count', 'batch', 'sizes'),
    [(96, 32, [32, 32, 32]), (97, 32, [25, 24, 24, 24]), (30, 32, [30]), (130, 128, [65, 65])],
)
def test_batches_are_even(count, batch, sizes):
    sampler = SelectionSampler(range(count), seed=0)
    batches = EvenBatchSampler(sampler, batch)
    assert [len(part) for part in batches] == sizes and len(batches) == len(sizes)
    assert torch.cat(list(batches)).tolist() == list(sampler)


def test_a_loader_follows_the_selection_without_being_built_anew():
    pool = NoisePool(40, image_size=4)
    sampler = SelectionSampler(pool, seed=0)
    loader = DataLoader(
        pool,
        batch_sampler=EvenBatchSampler(sampler, 8),
        collate_fn=whole_batch_collate,
        num_workers=1,
        persistent_workers=True,
    )
    for selected in (torch.arange(40), torch.arange(5, 17), torch.tensor([1, 39])):
        sampler.select(selected, 8)
        batches = list(loader)
        assert len(batches) == len(loader) == -(-len(selected) // 8)
        index = torch.cat([batch['index'] for batch in batches])
        assert sorted(index.tolist()) == selected.tolist()
        for batch in batches:
            images = torch.from_numpy(pool.images[batch['index'].numpy()]).permute(0, 3, 1, 2)
            assert torch.equal(batch['inputs'], images)


def test_seed_is_shared_when_none_is_given(monkeypatch):
    monkeypatch.setattr(samplers, 'sync_random_seed', lambda: 41)
    assert SelectionSampler(range(9)).seed == BankSampler(range(9), 5).seed == 41
    monkeypatch.undo()
    sampler = DATA_SAMPLERS.build(dict(type='SelectionSampler', dataset=range(9)))
    assert isinstance(sampler.seed, int) and list(sampler) == list(sampler)


# Draws from a bank ------------------------------------------------------------------------------


@pytest.fixture
def bank_sampler(monkeypatch):
    """A :class:`BankSampler` as rank ``rank`` of ``world`` builds it."""

    def build(bank, length, rank=0, world=1, seed=3, epoch=0):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world))
        sampler = BankSampler(bank, length, seed)
        sampler.set_epoch(epoch)
        return sampler

    return build


@pytest.mark.parametrize(('size', 'length'), [(10, 25), (10, 7), (3, 9), (1, 4)])
def test_permutations_of_the_bank_follow_each_other(bank_sampler, size, length):
    found = list(bank_sampler(range(size), length))
    assert len(found) == length
    for first in range(0, length, size):
        part = found[first : first + size]
        assert len(set(part)) == len(part) and set(part) <= set(range(size))
    assert set(found) == set(range(size)) or length < size


def test_the_bank_grows_between_epochs(bank_sampler):
    bank = [0] * 4
    sampler = bank_sampler(bank, 12)
    loader = EvenBatchSampler(sampler, 6)
    assert len(sampler) == 12 and len(loader) == 2
    assert torch.cat(list(loader)).max() == 3
    bank += [0] * 8
    assert sorted(torch.cat(list(loader)).tolist()) == list(range(12))


def test_draws_depend_on_seed_and_epoch_only(bank_sampler):
    settings = [dict(), dict(epoch=1), dict(seed=4), dict(seed=4, epoch=1), dict(seed=2, epoch=1)]
    draws = [tuple(bank_sampler(range(50), 50, **setting)) for setting in settings]
    assert len(set(draws)) == 5
    torch.rand(5)
    assert tuple(bank_sampler(range(50), 50)) == draws[0]


@pytest.mark.parametrize('world', [2, 3])
def test_ranks_share_the_draws_of_one(bank_sampler, world):
    alone = list(bank_sampler(range(7), 24))
    shares = [list(bank_sampler(range(7), 24, rank, world)) for rank in range(world)]
    assert [index for together in zip(*shares, strict=True) for index in together] == alone


def test_uneven_draws_are_filled_up(bank_sampler):
    samplers = [bank_sampler(range(7), 25, rank, 2) for rank in (0, 1)]
    assert [len(sampler) for sampler in samplers] == [len(list(s)) for s in samplers] == [13, 13]


def test_an_empty_bank(bank_sampler):
    with pytest.raises(UsageError, match='The bank is empty.*default_hooks.synthesis'):
        bank_sampler([], 4).share()
    with pytest.raises(UsageError, match=r'sampler\.length is 0'):
        bank_sampler([], 0)
