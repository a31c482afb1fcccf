# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Rounds of synthesis in a run: when, what they leave, and that nothing but the seed matters."""

import copy
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook

from mmdfkd.datasets import ImageBank, ImagePool
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.histogram import effective_classes
from mmdfkd.engine.hooks import SynthesisHook, synthesis_hook
from mmdfkd.engine.hooks.synthesis_hook import spread
from mmdfkd.engine.prediction import predict_logits
from mmdfkd.engine.synthesis import bank_facts, random_numbers_of, synthesize_round
from mmdfkd.models.algorithms import DeepInversion
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config

ROOT = Path(__file__).parents[3]


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def said(monkeypatch):
    """What a run's logger said, as ``(level, text)``."""
    lines = []
    original = logging.Logger.log

    def record(level):
        def log(self, message, *args, **kwargs):
            lines.append((level, str(message)))
            original(self, getattr(logging, level), message, *args, **kwargs)

        return log

    for level in ('INFO', 'WARNING'):
        monkeypatch.setattr(logging.Logger, level.lower(), record(level))
    return lines


@pytest.fixture
def rounds(monkeypatch):
    """Number and adversary of the rounds that are synthesised."""
    calls = []
    original = DeepInversion.synthesize

    def synthesize(self, optim_wrapper, round_number, adversary, on_step):
        calls.append((round_number, adversary))
        return original(self, optim_wrapper, round_number, adversary, on_step)

    monkeypatch.setattr(DeepInversion, 'synthesize', synthesize)
    return calls


# When, and what it leaves -----------------------------------------------------------------------


def test_rounds_before_epochs(train, inversion, rounds, tmp_path):
    sizes = []

    class Watch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            sizes.append(len(runner.train_dataloader.dataset))

    inversion['model'].update(warmup_rounds=2, rounds=3)
    train(before=lambda runner: runner.register_hook(Watch()), **inversion)
    assert rounds == [(0, False), (1, False), *[(number, True) for number in range(2, 8)]]
    assert sizes == [12 * 5] * 3 + [12 * 8] * 3


def test_the_bank_is_what_was_synthesised(train, inversion, tmp_path):
    inversion['model'].update(warmup_rounds=1)
    runner = train(**inversion)
    bank, pool = runner.train_dataloader.dataset, ImagePool(tmp_path / 'run/bank')
    pool.verify()
    assert isinstance(bank, ImageBank) and len(bank) == len(pool) == 36
    # The first round again: it has no adversary, so it depends on teacher and seed alone.
    with random_numbers_of(runner.seed, 0):
        again = runner.model.synthesize(runner.optim_wrapper, adversary=False)
    plain = runner.model.test_preprocessor.denormalize(again.images)
    assert torch.equal(pool.__getitems__(range(12))['inputs'], plain)
    assert pool.extra('labels')[:12].tolist() == again.targets.tolist()
    facts = pool.meta['bank']
    assert facts['method'] == 'DeepInversion' and facts['rounds'] == 3 and facts['seed'] == 0
    assert facts['teacher'] == runner.model.teacher_fingerprint()
    assert facts['classes'] == [*'abcde'] and facts['mean'] == [127.5]
    assert facts['std'] == [64.0]
    assert facts['settings'] == dict(batch_size=12, iterations=3, warmup_rounds=1)


def test_a_bank_may_lie_elsewhere(train, inversion, tmp_path):
    inversion['train_dataloader.dataset']['root'] = str(tmp_path / 'elsewhere')
    train(**inversion, **{'train_cfg.max_epochs': 1})
    assert len(ImagePool(tmp_path / 'elsewhere')) == 12
    assert not (tmp_path / 'run/bank').exists()


def test_rounds_are_no_part_of_the_time_of_a_step(finished):
    hooks = [type(hook).__name__ for hook in finished.hooks]
    assert hooks.index('SynthesisHook') < hooks.index('IntervalTimerHook')


def test_warm_up_images_do_not_depend_on_the_student(train, inversion, tmp_path):
    inversion['model'].update(warmup_rounds=1)
    train('one', **copy.deepcopy(inversion))
    inversion['model']['student']['backbone']['widths'] = (4, 4, 4)
    train('two', **inversion)
    one, two = (np.load(tmp_path / name / 'bank/images.npy') for name in ('one', 'two'))
    assert (one[:12] == two[:12]).all() and not (one[12:] == two[12:]).all()


def test_what_is_recorded(train, inversion, said, tmp_path):
    runner = train(**inversion)
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['bank']['images'] == summary['images_used'] == 24
    assert summary['bank']['rounds'] == 2
    seconds, rate = (
        summary['bank'][f'synthesis_{name}'] for name in ('seconds', 'images_per_second')
    )
    assert seconds > 0 and rate == pytest.approx(24 / seconds, rel=0.1)
    assert summary['train_images'] == 'bank' and summary['images_seen'] == 96
    scalars = [
        json.loads(line)
        for path in (tmp_path / 'run').rglob('scalars.json')
        for line in path.read_text().splitlines()
    ]
    logged = [record for record in scalars if 'synthesis_seconds' in record]
    assert [record['round'] for record in logged] == [1, 2]
    for name in ('loss_bn', 'loss_class', 'loss_tv', 'loss_norm', 'loss_compete'):
        assert all(np.isfinite(record[name]) for record in logged)
    bank = runner.train_dataloader.dataset
    logits = predict_logits(runner.model.teacher, bank, runner.model.test_preprocessor)
    confidence, labels = logits.softmax(1).max(1)
    hits = (labels == torch.as_tensor(bank.extra('labels'))).double()
    for record, part in zip(logged, (slice(12), slice(12, 24)), strict=True):
        assert record['synthesized_as_asked'] == pytest.approx(hits[part].mean().item())
        assert record['synthesized_confidence'] == pytest.approx(confidence[part].mean().item())
        assert record['synthesized_classes'] == pytest.approx(
            effective_classes(labels[part].bincount(minlength=5))
        )
    (first, second) = (text for level, text in said if text.startswith('Round '))
    assert first.startswith('Round 1: 12 images in ') and '12 in the bank' in first
    assert 'As the teacher sees them' in first and '24 in the bank' in second
    assert runner.message_hub.get_info('bank') == summary['bank']


def test_pictures(train, inversion, tmp_path):
    inversion['model'].update(rounds=4)
    train('some', **copy.deepcopy(inversion), **{'default_hooks.synthesis.interval': 3})
    drawn = sorted(path.name for path in (tmp_path / 'some/figures/bank').iterdir())
    assert drawn == [f'round_000{number}.png' for number in (1, 3, 6, 8)]
    train('none', **inversion, **{'default_hooks.synthesis.interval': 0})
    assert not (tmp_path / 'none/figures/bank').exists()


def test_settings_are_kept_as_json_has_them():
    teacher = SimpleNamespace(name='T', num_classes=2, mean=[1], std=[2])
    model = SimpleNamespace(method='M', teacher=teacher, teacher_fingerprint=lambda: 'abc')
    settings = dict(rounds=3, keep=None, clamp=True, betas=(0.5, 0.9), schedule=dict(type='X'))
    config = dict(type='M', teacher='path', student='path', data_preprocessor={}, **settings)
    config = ConfigDict(config, optimizer=dict(type=torch.optim.Adam))
    facts = bank_facts(model, 7, config, ['a', 'b'])
    assert json.loads(json.dumps(facts)) == facts
    adam = dict(type="<class 'torch.optim.adam.Adam'>")
    assert facts.pop('settings') == dict(settings, betas=[0.5, 0.9], optimizer=adam)
    teacher = dict(teacher='abc', teacher_name='T', num_classes=2, mean=[1.0], std=[2.0])
    assert facts == dict(teacher, method='M', classes=['a', 'b'], seed=7)


def test_as_many_pictures_as_asked_for(train, inversion, monkeypatch):
    """Evenly of all classes, and captioned with what the teacher sees in each."""
    grids = []
    monkeypatch.setattr(synthesis_hook, 'draw_samples', lambda *args: grids.append(args[2:5]))
    once = {'train_cfg.max_epochs': 1}
    train('some', **copy.deepcopy(inversion), **once, **{'default_hooks.synthesis.shown': 5})
    runner = train('all', **inversion, **once)
    assert [len(pixels) for pixels, *_ in grids] == [5, 12]
    bank = runner.train_dataloader.dataset
    logits = predict_logits(runner.model.teacher, bank, runner.model.test_preprocessor)
    for pixels, labels, confidence in grids:
        shown = spread(torch.as_tensor(bank.extra('labels')), len(pixels))
        assert torch.equal(pixels, bank.__getitems__(shown.tolist())['inputs'])
        assert torch.equal(labels, logits[shown].argmax(1))
        torch.testing.assert_close(confidence, logits[shown].softmax(1).max(1).values)


def test_other_methods_are_left_alone(finished):
    assert 'bank' not in finished.message_hub.runtime_info
    assert not Path(finished.work_dir, 'bank').exists()


def test_random_numbers_of_the_training_are_not_touched():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    with random_numbers_of(0, 0):
        first = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    draws = [first]
    for seed, number in ((0, 0), (0, 1), (1, 0)):
        with random_numbers_of(seed, number):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(draw.tolist()) for draw in draws}) == 3


# Stopped, resumed, repeated -----------------------------------------------------------------------


def test_a_resumed_run_ends_like_an_uninterrupted_one(train, toy_config, inversion, said, tmp_path):
    inversion['model'].update(warmup_rounds=1)
    keep = {'default_hooks.checkpoint.max_keep_ckpts': 9, 'train_cfg.max_epochs': 3}
    train('whole', **copy.deepcopy(inversion), **keep)
    train('resumed', **copy.deepcopy(inversion), **keep)  # its bank has two rounds too many
    path = tmp_path / 'resumed/epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['message_hub']['runtime_info']['bank']['synthesis_seconds'] = 1000.0
    torch.save(checkpoint, path)
    cfg = toy_config('resumed', **inversion, **keep)
    cfg.merge_from_dict(dict(load_from=str(path), resume=True))
    torch.manual_seed(99)
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    (text,) = (text for _, text in said if text.startswith('Goes on with'))
    bank = tmp_path / 'resumed/bank'
    assert text == f'Goes on with 24 images in {bank}; 24 later ones are made again.'
    assert 1000 < runner.message_hub.get_info('bank')['synthesis_seconds'] < 1300
    assert content(tmp_path / 'whole/bank') == content(tmp_path / 'resumed/bank')
    assert not (tmp_path / 'resumed/bank_1').exists()
    states = [
        torch.load(tmp_path / name / 'epoch_3.pth', weights_only=True)
        for name in ('whole', 'resumed')
    ]
    for name, value in states[0]['state_dict'].items():
        assert torch.equal(value, states[1]['state_dict'][name]), name
    assert states[0]['bank'] == states[1]['bank']
    assert states[0]['bank']['images'] == 48 and states[0]['bank']['rounds'] == 4
    assert 'images' not in states[0]['state_dict']


def command(folder, *args, python=(sys.executable,), **options):
    """Train DeepInversion on the digits, small, in a process of its own."""
    config = next((ROOT / 'configs/deepinversion').glob('*_digits.py'))
    small = {
        'model.iterations': 3,
        'model.batch_size': 12,
        'train_dataloader.sampler.length': 960,
        'default_hooks.synthesis.interval': 0,
        **options,
    }
    settings = [f'{key}={value}' for key, value in small.items()]
    tool = [*python, str(ROOT / 'tools/train.py'), str(config), '--no-validate']
    return [*tool, '--work-dir', str(folder), *args, '--cfg-options', *settings]


@pytest.fixture
def quiet():
    """Keywords for processes."""
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    return dict(env=env, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_continues_byte_for_byte(tmp_path, quiet):
    """kill -9 after the bank has grown and before the checkpoint of that epoch is written."""
    epochs = {'train_cfg.max_epochs': 3}
    subprocess.run(command(tmp_path / 'whole', **epochs), check=True, **quiet)
    process = subprocess.Popen(command(tmp_path / 'killed', **epochs), **quiet)
    meta = tmp_path / 'killed/bank/meta.json'
    while process.poll() is None:
        if meta.exists() and json.loads(meta.read_text())['bank']['rounds'] == 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / 'killed/epoch_2.pth').exists()
    subprocess.run(command(tmp_path / 'killed', '--resume', **epochs), check=True, **quiet)
    assert content(tmp_path / 'whole/bank') == content(tmp_path / 'killed/bank')
    last = [
        torch.load(tmp_path / name / 'epoch_3.pth', weights_only=True)['state_dict']
        for name in ('whole', 'killed')
    ]
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_make_the_bank_of_one(tmp_path, quiet):
    """With and without an adversary; the first process writes, both learn from it."""
    options = {'model.warmup_rounds': 2, 'train_cfg.max_epochs': 1}
    subprocess.run(command(tmp_path / 'one', **options), check=True, **quiet)
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    two = command(tmp_path / 'two', '--launcher', 'pytorch', python=torchrun, **options)
    subprocess.run(two, check=True, **quiet)
    assert content(tmp_path / 'one/bank') == content(tmp_path / 'two/bank')
    summary = json.loads((tmp_path / 'two/summary.json').read_text())
    assert summary['processes'] == 2 and summary['bank']['images'] == 36
    assert summary['images_seen'] == 960


def test_a_new_run_sets_an_old_bank_aside(train, inversion, said, tmp_path):
    train(**copy.deepcopy(inversion))
    before = content(tmp_path / 'run/bank')
    (tmp_path / 'run/last_checkpoint').unlink()
    train(**inversion, **{'randomness.seed': 1})
    assert content(tmp_path / 'run/bank_1') == before
    assert len(ImagePool(tmp_path / 'run/bank')) == 24
    assert content(tmp_path / 'run/bank') != before
    (text,) = (text for level, text in said if level == 'WARNING' and 'bank_1' in text)
    assert 'left by an earlier run' in text and '--resume' in text


class Mistaken(Hook):
    """A hook that finds fault with a run before its first step."""

    def before_train(self, runner):
        raise UsageError('late')


@pytest.mark.parametrize('method', ['inversion', 'hybrid'])
def test_a_start_that_fails_leaves_the_earlier_run_as_it_was(train, tmp_path, method, request):
    """So that it can be gone on with."""
    changes = request.getfixturevalue(method)
    train(**copy.deepcopy(changes))
    before = content(tmp_path / 'run/bank')
    with pytest.raises(UsageError, match='late'):
        train(before=lambda runner: runner.register_hook(Mistaken()), **copy.deepcopy(changes))
    assert content(tmp_path / 'run/bank') == before
    runner = train(**copy.deepcopy(changes), **{'train_cfg.max_epochs': 3}, resume=True)
    assert runner.epoch == 3 and not (tmp_path / 'run/bank_1').exists()


def test_resuming_without_the_bank(train, toy_config, inversion, tmp_path):
    train(**copy.deepcopy(inversion))
    cfg = toy_config('elsewhere', **inversion)
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'run/epoch_2.pth'), resume=True))
    with pytest.raises(UsageError, match=r'a bank of 24 images.*holds 0\. Resume in the work dir'):
        DistillRunner.from_cfg(cfg).train()


def test_other_settings_are_said(train, toy_config, inversion, said, tmp_path):
    train(**copy.deepcopy(inversion), **{'train_cfg.max_epochs': 1})
    del inversion['model']['batch_size']
    inversion['model'].update(iterations=4, rounds=1)
    cfg = toy_config('run', **inversion)
    cfg.resume = True
    DistillRunner.from_cfg(cfg).train()
    (text,) = (text for level, text in said if level == 'WARNING' and 'other settings' in text)
    assert text.endswith(
        'model.batch_size was 12, model.iterations was 3, model.rounds was not set'
    )


def test_starting_from_weights_is_a_new_run(train, toy_config, inversion, tmp_path):
    train(**copy.deepcopy(inversion))
    cfg = toy_config('next', **inversion)
    cfg.load_from = str(tmp_path / 'run/epoch_2.pth')
    DistillRunner.from_cfg(cfg).train()
    assert len(ImagePool(tmp_path / 'next/bank')) == 24


# Mistakes -----------------------------------------------------------------------------------------


def test_a_config_of_the_bank_road_is_in_order(toy_config, inversion):
    cfg = toy_config(**inversion)
    check_config(cfg)
    cfg.model.optimizer = dict(lr=0.1)
    check_config(cfg)
    cfg.train_dataloader.sampler['lenght'] = 3
    with pytest.raises(UsageError, match=r'sampler\.lenght'):
        check_config(cfg)


def test_a_method_that_fills_no_bank(train, inversion):
    del inversion['model']
    with pytest.raises(UsageError, match=r"KD synthesises no images.*dict\(type='ImagePool'"):
        train(**inversion, **{'model.type': 'KD', 'model.alpha': 1.0, 'model.selector': None})


def test_a_method_without_its_bank(train, inversion):
    for key in ('train_dataloader.dataset', 'train_dataloader.sampler'):
        del inversion[key]
    with pytest.raises(UsageError, match=r"DeepInversion fills a bank.*NoisePool.*'ImageBank'"):
        train(**inversion)


def test_loops_without_epochs(train, inversion):
    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    with pytest.raises(UsageError, match='synthesises before epochs'):
        train(**inversion, train_cfg=loop, param_scheduler=None)


def test_no_hook(train, toy_config, inversion):
    cfg = toy_config(**inversion)
    del cfg.default_hooks['synthesis']
    with pytest.raises(UsageError, match='The bank is empty.*default_hooks.synthesis'):
        DistillRunner.from_cfg(cfg).train()


def test_pixels_that_are_no_numbers(train, inversion, tmp_path):
    inversion['model'].update(optimizer=dict(type='SGD', lr=1e38), keep='last', clamp=False)
    with pytest.raises(UsageError, match='NaN or infinite in round 1.*learning rate'):
        train(**inversion)
    assert json.loads((tmp_path / 'run/bank/meta.json').read_text())['count'] == 0


@pytest.mark.parametrize('value', [float('inf'), float('-inf'), float('nan')])
def test_a_single_pixel_that_is_no_number(value):
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 3] = value
    made = SimpleNamespace(images=images, targets=torch.zeros(2), logs={})
    model = SimpleNamespace(iterations=1, synthesize=lambda *_: made)
    with pytest.raises(UsageError, match='NaN or infinite in round 3'):
        synthesize_round(model, None, seed=0, number=2)


def test_a_full_disk_ends_the_run_and_keeps_the_bank(train, inversion, monkeypatch, tmp_path):
    class Fill(Hook):
        def after_train_epoch(self, runner):
            monkeypatch.setattr('mmdfkd.datasets.bank_files._sync', full)

    def full(file):
        raise OSError(28, os.strerror(28))

    with pytest.raises(UsageError, match=r'Its 12 images are safe.*--resume'):
        train(before=lambda runner: runner.register_hook(Fill(), 'LOWEST'), **inversion)
    monkeypatch.undo()
    ImagePool(tmp_path / 'run/bank').verify()


def test_a_folder_that_only_the_first_machine_sees(monkeypatch):
    bank = MagicMock(root='bank')
    runner = SimpleNamespace(rank=1, train_dataloader=SimpleNamespace(dataset=bank))
    monkeypatch.setattr(synthesis_hook, 'on_first_process', lambda write: 12)
    bank.__len__.return_value = 12
    SynthesisHook._change(runner, bank.append)
    bank.refresh.assert_called_once_with()
    bank.__len__.return_value = 0
    with pytest.raises(UsageError, match='Process 1 sees 0 images in bank, the first one 12'):
        SynthesisHook._change(runner, bank.append)
    bank.append.assert_not_called()


def test_a_collapse_is_reported(train, inversion, said):
    def destroy(runner):
        with torch.no_grad():
            runner.model.teacher.head.fc.weight.zero_()
            runner.model.teacher.head.fc.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]))

    inversion['model'].update(rounds=10)
    train(before=destroy, **inversion, **{'train_cfg.max_epochs': 1})
    # ten images of each of five classes are four rounds of twelve, and two of the fifth
    rounds = [text for _, text in said if text.startswith(('Round ', 'Synthesis'))]
    assert [text.startswith('Synthesis') for text in rounds] == 2 * [*5 * [False], True]
    assert 'Synthesis collapse: 100% of the generated images are of class c' in rounds[5]
    assert 'model.iterations' in rounds[5]


def test_the_remedy_is_one_of_the_method(train, hybrid, said):
    def destroy(runner):
        runner.model.teacher.head.fc.bias.data[2] += 1e4

    train(before=destroy, **hybrid, **{'model.num_synthetic': 60})
    (words,) = [text for _, text in said if text.startswith('Synthesis collapse')]
    assert 'Raise model.gan_epochs, model.class_weight or model.smoothing.loss_weight.' in words


# Of 0 0 1 1 2 2 every other one; of fewer images than are asked for, all.
def test_a_grid_shows_all_classes():
    targets = torch.tensor([2, 0, 1, 0, 2, 1])
    assert targets[spread(targets, 3)].tolist() == [0, 1, 2]
    assert spread(targets, 64).tolist() == [1, 3, 2, 5, 0, 4]
