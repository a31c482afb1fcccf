# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Runs without images: what they open, record, resume and do when they break."""

import copy
import json

import pytest
import sklearn.datasets
import torch
from mmengine.hooks import Hook

from mmdfkd.datasets import DigitsDataset, LatentDataset
from mmdfkd.engine import DistillRunner
from mmdfkd.models.classifiers import load_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config


def weights(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def zskt(generative):
    """Changes to a config: ZSKT instead of DFAD."""
    generative['model'].update(type='ZSKT')
    return generative


@pytest.fixture
def pre_dfkd(generative):
    """Changes to a config: PRE-DFKD, whose auto-encoder is another role."""
    adam = dict(optimizer=dict(type='Adam', lr=1e-3))
    generative['model'].update(
        type='PREDFKD', memory_steps=1, memory=dict(latent_size=5, widths=(4, 4)), replay_ratio=4
    )
    return {**generative, 'optim_wrapper.memory': adam}


def test_no_image_is_opened(train, zskt, without_validation, tmp_path, monkeypatch):
    """Neither a dataset nor its folder has to exist."""

    def opened(*args, **kwargs):
        raise AssertionError('a run without images opened some')

    monkeypatch.setattr(DigitsDataset, '__init__', opened)
    monkeypatch.setattr(sklearn.datasets, 'load_digits', opened)
    monkeypatch.setattr('mmdfkd.datasets.packed.PackedDataset.__init__', opened)
    monkeypatch.chdir(tmp_path)
    runner = train(**zskt, **without_validation)
    assert isinstance(runner.train_dataloader.dataset, LatentDataset)
    assert runner.train_dataloader.dataset.shape == (1, 4)  # the algorithm's
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['finished'] and summary['method'] == 'ZSKT'
    assert summary['student_accuracy_last'] is None
    student = load_classifier(tmp_path / 'run/student.pth')
    assert student.num_classes == 5


def _train(rank, cfg):
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    return runner.model.state_dict()


def test_two_processes_train_one_generator(
    toy_config, pre_dfkd, without_validation, in_two_processes
):
    cfg = toy_config(launcher='pytorch', **pre_dfkd, **without_validation)
    before = {name: value.clone() for name, value in MODELS.build(cfg.model).state_dict().items()}
    first, second = in_two_processes(_train, cfg)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    changed = {name for name, value in first.items() if not torch.equal(value, before[name])}
    assert {name.split('.')[0] for name in changed} >= {'student', 'generator', 'memory'}


def test_each_iteration_has_new_latents(train, generative):
    seen = []

    class Watch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append(data_batch['index'].tolist())

    train(before=lambda runner: runner.register_hook(Watch()), **generative)
    assert seen == [[*range(start, start + 16)] for start in range(0, 96, 16)]


def test_a_resumed_run_ends_like_an_uninterrupted_one(train, toy_config, zskt, tmp_path):
    train('whole', **copy.deepcopy(zskt), **{'default_hooks.checkpoint.max_keep_ckpts': 9})
    cfg = toy_config('resumed', **zskt)
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True))
    torch.manual_seed(99)  # a new process starts with other generators
    DistillRunner.from_cfg(cfg).train()
    ends = [weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'resumed')]
    parts = {name.split('.')[0] for name in ends[0]['state_dict']}
    assert parts == {'student', 'generator'}
    for name, value in ends[0]['state_dict'].items():
        assert torch.equal(value, ends[1]['state_dict'][name]), name
    start = weights(tmp_path / 'whole/epoch_1.pth')['state_dict']
    assert not torch.equal(
        start['generator.linear.weight'], ends[0]['state_dict']['generator.linear.weight']
    )


def test_a_resumed_run_goes_on_replaying(train, toy_config, pre_dfkd, tmp_path):
    runner = train('whole', **copy.deepcopy(pre_dfkd), **{'train_cfg.max_epochs': 2})
    # 1 + 2 new, noise of 1, and (2 + 2) / 4 of replayed ones; 5 is the longer kind of latents
    assert runner.train_dataloader.dataset.shape == (5, 5)
    grids = sorted(path.name for path in (tmp_path / 'whole/figures/replayed').iterdir())
    assert grids == ['epoch_0001.png', 'epoch_0002.png']
    cfg = toy_config('resumed', **pre_dfkd, **{'train_cfg.max_epochs': 2})
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True))
    torch.manual_seed(99)
    DistillRunner.from_cfg(cfg).train()
    ends = [weights(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('whole', 'resumed')]
    assert {name.split('.')[0] for name in ends[0]} == {
        *('student', 'generator', 'memory', 'encoder', '_extra_state')
    }
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


class BrokenGenerator(Hook):
    """Make the generator's weights NaN in the second epoch."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            with torch.no_grad():
                runner.model.generator.conv.weight.fill_(float('nan'))


def test_nan_names_the_last_good_checkpoint(train, zskt, tmp_path):
    with pytest.raises(UsageError) as error:
        train(before=lambda runner: runner.register_hook(BrokenGenerator()), **zskt)
    message = str(error.value)
    assert 'NaN or infinite in epoch 2' in message and 'discrepancy' in message
    assert 'last good checkpoint is' in message and 'epoch_1.pth' in message
    state = weights(tmp_path / 'run/epoch_1.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())
    assert not (tmp_path / 'run/epoch_2.pth').exists()


@pytest.mark.parametrize(('warm_up', 'fits'), [(5, True), (6, False)])
def test_a_warm_up_leaves_time_for_the_student(train, generative, teacher_file, warm_up, fits):
    """Two epochs of three iterations."""
    del generative['model']['student_steps']
    generative['model'].update(type='DFQ', warmup_iterations=warm_up)
    if fits:
        assert train(**generative).model.iteration == 6
    else:
        with pytest.raises(
            UsageError, match='warmup_iterations is 6, .* 6 iterations .*max_epochs'
        ):
            train(**generative)


def test_a_generator_needs_latents(train, generative):
    del generative['train_dataloader.dataset'], generative['train_dataloader.sampler']
    with pytest.raises(UsageError, match=r"DFAD reads no images.*type='LatentDataset'"):
        train(**generative)


def test_latents_need_a_generator(train, generative):
    del generative['model']
    generative.pop('optim_wrapper.generator')
    generative.pop('param_scheduler.generator')
    with pytest.raises(UsageError, match="KD learns from images.*type='ImagePool'"):
        train(**generative, **{'model.type': 'KD', 'model.alpha': 1.0, 'model.selector': None})


def test_a_misspelt_argument_is_found_before_anything_is_built(toy_config, generative):
    cfg = toy_config(**generative)
    check_config(cfg)
    cfg.model.generator['width'] = (4, 4)
    with pytest.raises(UsageError, match=r"model\.generator\.width is no argument.*'widths'"):
        check_config(cfg)


def test_a_role_without_a_schedule_keeps_its_rate(train, generative):
    generative.pop('param_scheduler.generator')
    runner = train(**generative)
    rates = {role: rate[0] for role, rate in runner.optim_wrapper.get_lr().items()}
    assert rates['student.lr'] == pytest.approx(0.005)  # divided by 10 after the first epoch
    assert rates['generator.lr'] == 1e-3


def test_a_schedule_for_nobody(train, generative):
    generative['param_scheduler.discriminator'] = [dict(type='MultiStepLR', milestones=[1])]
    message = r"param_scheduler has the roles \['discriminator.*DFAD trains.*remove 'discriminator'"
    with pytest.raises(UsageError, match=message):
        train(**generative)
