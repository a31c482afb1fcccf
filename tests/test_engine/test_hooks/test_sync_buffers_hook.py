# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from mmdfkd.engine.hooks import SyncBuffersHook, sync_buffers_hook
from mmdfkd.models.modules import FeatureBank
from mmdfkd.registry import HOOKS


def as_one_of(monkeypatch, ranks, others):
    """Be rank 0 of several; ``others`` gives the sum of what the other ranks hold."""

    def all_reduce(data, op):
        assert op == 'mean'
        data.add_(others(data)).div_(ranks)

    monkeypatch.setattr(sync_buffers_hook, 'get_world_size', lambda: ranks)
    monkeypatch.setattr(sync_buffers_hook, 'all_reduce', all_reduce)


def test_statistics_become_their_mean(monkeypatch):
    model = nn.BatchNorm1d(2)
    model.running_mean.copy_(torch.tensor([1.0, 2.0]))
    model.num_batches_tracked.fill_(6)

    def other_rank(flat):  # mean (3, 6), variance (1, 1), 6 batches
        return torch.tensor([3.0, 6.0, 1.0, 1.0, 6.0], dtype=flat.dtype)

    as_one_of(monkeypatch, 2, other_rank)
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=model))
    assert model.running_mean.tolist() == [2.0, 4.0] and model.running_var.tolist() == [1.0, 1.0]
    assert model.num_batches_tracked == 6 and model.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize('ranks', [2, 3, 5, 6, 7])
def test_what_is_equal_everywhere_does_not_change_by_a_bit(monkeypatch, ranks):
    model = nn.Module()
    model.register_buffer('teacher', torch.randn(1000))
    model.register_buffer('count', torch.tensor(2**24 + 1))  # not a float32
    before = [buffer.clone() for buffer in model.buffers()]
    as_one_of(monkeypatch, ranks, lambda flat: flat * (ranks - 1))
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=model))
    for buffer, expected in zip(model.buffers(), before, strict=True):
        assert torch.equal(buffer, expected)


def test_a_bank_of_features_is_left_out(monkeypatch):
    """All processes fill it alike, and CMI's holds 40,960 rows."""
    model = nn.Sequential(nn.BatchNorm1d(2), FeatureBank(1000, 3))
    sizes = []

    def other_rank(flat):
        sizes.append(len(flat))
        return flat

    as_one_of(monkeypatch, 2, other_rank)
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=model))
    assert sizes == [2 + 2 + 1]  # mean, variance and count


def test_when_processes_average(monkeypatch):
    averaged = []
    monkeypatch.setattr(SyncBuffersHook, '_average', staticmethod(averaged.append))
    hook = SyncBuffersHook(interval=3)
    for loop, expected in ((EpochBasedTrainLoop, []), (IterBasedTrainLoop, [2, 5, 7])):
        for iteration in range(8):
            state = SimpleNamespace(train_loop=loop.__new__(loop), iter=iteration, max_iters=8)
            hook.after_train_iter(state, iteration)
        assert [state.iter for state in averaged] == expected
    averaged.clear()
    hook.before_val_epoch('before a validation')
    hook.after_train_epoch('after an epoch')
    assert averaged == ['before a validation', 'after an epoch']


def test_one_process_and_no_buffers_have_nothing_to_do(monkeypatch):
    monkeypatch.setattr(sync_buffers_hook, 'all_reduce', lambda *_: pytest.fail('asked others'))
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=nn.BatchNorm1d(2)))
    monkeypatch.setattr(sync_buffers_hook, 'get_world_size', lambda: 2)
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=nn.Linear(1, 1)))


def test_takes_the_place_of_mmengines():
    assert HOOKS.get('SyncBuffersHook') is SyncBuffersHook
    assert MMENGINE_HOOKS.get('mmdfkd.SyncBuffersHook') is SyncBuffersHook
