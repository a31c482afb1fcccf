# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch

from mmdfkd.engine import DistillRunner, set_loader_defaults
from mmdfkd.utils import UsageError, register_all_modules


def test_no_image_is_evaluated_twice(toy_config):
    cfg = toy_config()
    for split in ('val', 'test'):
        del cfg[f'{split}_dataloader'].sampler['round_up']
    runner = DistillRunner.from_cfg(cfg)
    for loop in (runner.val_loop, runner.test_loop):
        assert loop.dataloader.sampler.round_up is False


def test_what_a_config_says_of_a_loader_holds(toy_config):
    cfg = toy_config(**{'test_dataloader.sampler.round_up': True})
    before = copy.deepcopy(cfg.to_dict())
    runner = DistillRunner.from_cfg(cfg)
    assert runner.test_loop.dataloader.sampler.round_up is True
    plain = dict(cfg.train_dataloader, batch_sampler=None)
    loader = DistillRunner.build_dataloader(plain, seed=0)
    assert type(loader.batch_sampler) is torch.utils.data.BatchSampler
    assert cfg.to_dict() == before


def test_no_workers_need_not_persist(toy_config):
    """A config may say so for the workers that it has, and an option leave those out."""
    register_all_modules()
    cfg = toy_config(**{'train_dataloader.persistent_workers': True})
    assert len(next(iter(DistillRunner.build_dataloader(cfg.train_dataloader, seed=0)))['index'])


def test_batches_of_even_size_are_not_dropped(toy_config):
    register_all_modules()
    cfg = toy_config(**{f'{split}_dataloader.drop_last': True for split in ('train', 'val')})
    with pytest.raises(UsageError, match='EvenBatchSampler makes the batches, and drops none'):
        DistillRunner.build_dataloader(cfg.train_dataloader, seed=0)
    loader = DistillRunner.build_dataloader(cfg.val_dataloader, seed=0)
    assert [len(batch['index']) for batch in loader] == [32]  # of 40


def test_a_scope_changes_no_sampler(toy_config):
    register_all_modules()
    cfg = toy_config(**{'train_dataloader.sampler.type': 'mmdfkd.SelectionSampler'})
    loader = DistillRunner.build_dataloader(cfg.train_dataloader, seed=0)
    assert type(loader.batch_sampler).__name__ == 'EvenBatchSampler'


@pytest.mark.parametrize('gpu', [True, False])
@pytest.mark.parametrize('switches', [{}, dict(pin_memory=False, persistent_workers=False)])
def test_loaders_are_pinned_and_keep_their_workers_where_they_can(
    toy_config, monkeypatch, gpu, switches
):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    said = {'test_dataloader.pin_memory': 'said', 'test_dataloader.persistent_workers': 'said'}
    cfg = toy_config(**said, **{'train_dataloader.num_workers': 2}, val_dataloader=None)
    set_loader_defaults(cfg, **switches)
    train, test = cfg.train_dataloader, cfg.test_dataloader
    assert (train.pin_memory, train.persistent_workers) == (gpu and not switches, not switches)
    said = False if switches else 'said'
    assert (test.pin_memory, test.persistent_workers) == (said, said)
    cfg = toy_config()  # no workers
    del cfg.test_dataloader['num_workers']
    set_loader_defaults(cfg, **switches)
    assert {cfg[f'{split}_dataloader'].persistent_workers for split in ('train', 'test')} == {False}


def test_workers_draw_nothing_from_the_run(toy_config):
    register_all_modules()
    cfg = toy_config(**{'train_dataloader.num_workers': 1})
    loader = DistillRunner.build_dataloader(cfg.train_dataloader, seed=0)
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)
