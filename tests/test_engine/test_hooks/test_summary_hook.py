# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdfkd.engine import DistillRunner
from mmdfkd.engine.hooks import summary_hook
from mmdfkd.engine.hooks.summary_hook import (
    accuracy_over_epochs,
    commit,
    versions,
)
from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils import UsageError
from mmdfkd.version import __version__


def test_accuracy_over_epochs_by_hand():
    # mean (10 + 70 + 40) / 3; deviations -30, 30, 0: sqrt(1800 / 3)
    assert accuracy_over_epochs([10.0, 70.0, 40.0]) == {
        'student_accuracy_last': 40,
        'student_accuracy_best': 70,
        'student_accuracy_mean': 40,
        'student_accuracy_std': pytest.approx(600**0.5),
    }
    assert accuracy_over_epochs([50.0])['student_accuracy_std'] == 0
    assert set(accuracy_over_epochs([]).values()) == {None}


def test_versions_and_commit():
    assert versions()['mmdfkd'] == __version__
    assert {'python', 'torch', 'torchvision', 'onedl-mmengine', 'onedl-mmcv'} <= versions().keys()
    asked = subprocess.run(
        ['git', '-C', str(Path(__file__).parent), 'rev-parse', 'HEAD'],
        capture_output=True,
        text=True,
    )
    assert commit() == (asked.stdout.strip() if asked.returncode == 0 else 'unknown')


def test_what_is_not_installed_has_no_version(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(summary_hook, 'version', missing)
    assert versions()['torch'] == 'unknown' and versions()['mmdfkd'] == __version__


@pytest.mark.parametrize(
    ('done', 'begin', 'due'),
    [(2, 1, True), (3, 1, False), (5, 1, True), (2, 3, False), (4, 3, True)],
)
def test_a_validation_is_due_every_other_time_and_at_the_end(done, begin, due):
    """Of five, from some on."""
    interval = dict(val_begin=begin, dynamic_milestones=[0], dynamic_intervals=[2])
    epochs = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    vars(epochs).update(interval, _epoch=done, _max_epochs=5, _iter=7 * done + 1, _max_iters=35)
    iterations = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    vars(iterations).update(interval, _epoch=0, _max_epochs=1, _iter=done, _max_iters=5)
    for loop in (epochs, iterations):
        assert summary_hook.is_due(SimpleNamespace(train_loop=loop, val_loop='some')) == due
        assert not summary_hook.is_due(SimpleNamespace(train_loop=loop, val_loop=None))


def test_another_projects_commit_is_not_ours(tmp_path, monkeypatch):
    """A package installed inside of its checkout, and one that it has taken in."""

    def git(*words):
        who = ['-c', 'user.name=x', '-c', 'user.email=x@y.z', '-c', 'commit.gpgsign=false']
        command = ['git', '-C', str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git('init')
    git('commit', '--allow-empty', '-m', 'theirs')
    package = tmp_path / 'lib/mmdfkd.py'
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(summary_hook, '__file__', str(package))
    assert commit() == 'unknown'
    git('add', '.')
    git('commit', '-m', 'ours')
    assert commit() == git('rev-parse', 'HEAD')


def test_no_git_is_no_reason_to_stop(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError('git')

    monkeypatch.setattr(subprocess, 'run', missing)
    assert commit() == 'unknown'


def test_images_are_counted(finished):
    summary = json.loads(Path(finished.work_dir, 'summary.json').read_text())
    selected = finished.message_hub.get_scalar('train/selected').data[0]
    # a batch of one is avoided by seeing one image twice
    extra = summary['images_seen'] - selected.sum()
    assert 0 <= extra <= 2
    assert selected.max() <= summary['images_used'] <= 96


def test_an_image_is_used_by_whatever_epoch_selects_it(train, tmp_path):
    chosen = []

    class Look(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            chosen.extend(data_batch['index'].tolist())

    random = {'model.selector.mode': 'random'}
    train(before=lambda runner: runner.register_hook(Look()), **random)
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['images_used'] == len(set(chosen)) < 96
    assert summary['images_seen'] == len(chosen) > len(set(chosen))


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    hook = summary_hook.SummaryHook()
    hook._dump(str(tmp_path), {})
    hook.missed, hook.write = False, lambda *_, **__: {}
    hook.after_train(SimpleNamespace(rank=1, model=None, max_epochs=1, work_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_images_of_another_pool_are_counted_anew(train, tmp_path):
    whole = dict(type='KD', alpha=1.0, selector=None)
    train(model=whole, **{'train_cfg.max_epochs': 1})
    smaller = {'train_dataloader.dataset.num_images': 80}
    train(model=whole, resume=True, **smaller)
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert (summary['images_used'], summary['images_seen']) == (80, 96 + 80)


def test_every_generated_image_is_another(train, generative, tmp_path):
    train(**generative, **{'train_cfg.max_epochs': 2})
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert (summary['images_used'], summary['images_seen']) == (2 * 48, 2 * 48)


def test_images_of_all_processes_are_counted():
    hook = summary_hook.SummaryHook()
    hook.images = 0
    for index in (range(3), range(2)):
        runner = SimpleNamespace(world_size=4, train_loop=None)
        hook.after_train_iter(runner, 0, dict(index=index))
    assert hook.images == 4 * 5


def test_a_dataset_of_pytorchs_kind_is_refused():
    images = torch.utils.data.TensorDataset(torch.zeros(3, 1, 4, 4))
    runner = SimpleNamespace(model=None, train_dataloader=SimpleNamespace(dataset=images))
    with pytest.raises(UsageError, match='is a TensorDataset, .* Derive it from PackedDataset'):
        summary_hook.SummaryHook().before_train(runner)


@pytest.mark.parametrize('by_iteration', [False, True])
def test_a_validation_is_no_training(by_iteration, train, monkeypatch, tmp_path):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(summary_hook, 'time', SimpleNamespace(perf_counter=lambda: now.time))

    class Clock(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            now.time += 1

        def before_val_epoch(self, runner):
            now.time += 1000

    loop = {
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2, _delete_=True),
        'param_scheduler': None,
        'model': dict(type='KD', alpha=1.0, selector=None),
    }
    changes = loop if by_iteration else {}
    runner = train(before=lambda runner: runner.register_hook(Clock()), **changes)
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['seconds'] == runner.iter
    assert summary['images_per_second'] == pytest.approx(
        summary['images_seen'] / runner.iter, abs=0.05
    )


def test_a_killed_run_leaves_its_record(train, tmp_path):
    class Killed(Exception):
        pass

    def kill_after_the_first_epoch(runner):
        before = runner.call_hook

        def call_hook(name, **kwargs):
            if name == 'before_train_epoch' and runner.epoch == 1:
                raise Killed
            before(name, **kwargs)

        runner.call_hook = call_hook

    try:
        train(before=kill_after_the_first_epoch)
    except Killed:
        summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert (summary['finished'], summary['epoch']) == (False, 1)
    assert summary['student_accuracy_last'] is not None and summary['seconds'] > 0
    assert not (tmp_path / 'run/student.pth').exists()


class InValidation(Hook):
    """Kill a run in the validation after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_val_epoch(self, runner):
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize('epoch', [1, 2])
def test_a_validation_that_a_run_was_killed_in_is_made_up_for(train, tmp_path, epoch):
    whole = train('whole')
    with pytest.raises(KeyboardInterrupt):
        train('run', before=lambda runner: runner.register_hook(InValidation(epoch)))
    training = []

    class Look(Hook):
        def before_train_epoch(self, runner):
            training.append(runner.model.training and runner.model.student.training)

    resumed = train('run', before=lambda r: r.register_hook(Look(), 'LOWEST'), resume=True)
    assert training == [True] * (2 - epoch)  # also behind a validation
    records = [json.loads((tmp_path / n / 'summary.json').read_text()) for n in ('whole', 'run')]
    for key in ('student_accuracies', 'student_accuracy_last', 'agreement', 'finished'):
        assert records[0][key] == records[1][key], key
    assert len(records[1]['student_accuracies']) == 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_validation_of_a_run_that_counts_iterations_is_made_up_for(train, tmp_path):
    class InValidation(Hook):
        def before_val_epoch(self, runner):
            if runner.iter == 2:
                raise KeyboardInterrupt

    changes = {
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2, _delete_=True),
        'param_scheduler': None,
        'model': dict(type='KD', alpha=1.0, selector=None),
        'default_hooks.checkpoint': dict(by_epoch=False, interval=2),
    }
    with pytest.raises(KeyboardInterrupt):
        train(before=lambda runner: runner.register_hook(InValidation()), **changes)
    train(resume=True, **changes)
    record = json.loads((tmp_path / 'run/summary.json').read_text())
    assert [step for step, _ in record['student_accuracies']] == [2, 4]


@pytest.mark.parametrize('out_dir', [False, True])
def test_a_validation_that_was_over_is_not_repeated(train, tmp_path, monkeypatch, out_dir):
    """Whatever it measured, and wherever checkpoints are."""
    monkeypatch.chdir(tmp_path)
    changes = {'val_evaluator': [dict(type='Agreement')]}
    if out_dir:
        changes['default_hooks.checkpoint.out_dir'] = str(tmp_path / 'checkpoints')
    train('run', **changes)
    for epoch in (3, 4):
        changes['train_cfg.max_epochs'], count = epoch, Count()
        train('run', before=lambda r, hook=count: r.register_hook(hook), resume=True, **changes)
        assert count.seen == [epoch]
        folder = 'checkpoints/run' if out_dir else 'run'
        changes['load_from'] = f'{folder}/epoch_3.pth'  # seen from here


class Count(Hook):
    """Which epochs a run validates after, and perhaps an iteration in which it is killed."""

    def __init__(self, last=None):
        self.seen = []
        self.last = last

    def before_val_epoch(self, runner):
        self.seen.append(runner.epoch)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.last:
            raise KeyboardInterrupt


def test_a_record_is_gone_on_with_wherever_and_whenever_checkpoints_are_written(train, tmp_path):
    checkpoint = dict(out_dir=str(tmp_path / 'checkpoints'), priority='NORMAL')  # before the record
    histories = []
    for resume in (False, True):
        train(resume=resume, **{'default_hooks.checkpoint': checkpoint})
        record = json.loads((tmp_path / 'run/summary.json').read_text())
        histories.append(record['student_accuracies'])
    assert len(histories[0]) == 2 and histories[0] == histories[1]


def test_a_run_that_was_over_keeps_its_agreement(train, tmp_path):
    """Also where nothing else is measured."""
    records = []
    for resume in (False, True):
        train(val_evaluator=[dict(type='Agreement')], resume=resume)
        records.append(json.loads((tmp_path / 'run/summary.json').read_text()))
    assert records[0]['agreement'] == records[1]['agreement'] is not None


def test_within_an_epoch_nothing_is_validated(train, tmp_path):
    """Nor made up for where a checkpoint is from there."""
    changes = {
        'model': dict(type='KD', alpha=1.0, selector=None),
        'default_hooks.checkpoint': dict(by_epoch=False, interval=2),
    }
    with pytest.raises(KeyboardInterrupt):  # in the second of two epochs of six iterations
        train('run', before=lambda runner: runner.register_hook(Count(last=9)), **changes)
    count = Count()
    train('run', before=lambda runner: runner.register_hook(count), resume=True, **changes)
    assert count.seen == [2]


def test_what_is_due_follows_the_interval_of_the_time(train, tmp_path):
    changes = {
        'train_cfg.max_epochs': 4,
        'train_cfg.val_interval': 3,
        'train_cfg.dynamic_intervals': [(3, 2)],
        'default_hooks.checkpoint.max_keep_ckpts': 9,
    }
    for name, start, due in (('whole', 0, [2, 4]), ('two', 2, [2, 4]), ('three', 3, [4])):
        file, count = f'{tmp_path}/whole/epoch_{start}.pth', Count()
        resumed = dict(load_from=file, resume=True) if start else {}
        train(
            name, before=lambda runner, hook=count: runner.register_hook(hook), **changes, **resumed
        )
        assert count.seen == due


def test_what_is_noted_for_a_checkpoint_is_not_logged(train, tmp_path):
    """mmengine logs with a validation whatever it knows that begins with val."""
    train(log_level='INFO')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    lines = [line for line in log.read_text().splitlines() if 'Epoch(val)' in line]
    told = [re.findall(r' (\S+): ', line) for line in lines]
    measured = ['accuracy/top1', 'agreement/teacher', 'data_time', 'time']
    assert told == [measured] * len(told) and told


def test_a_record_of_another_run_is_not_taken_over(train, tmp_path):
    first = train('run')
    with pytest.raises(KeyboardInterrupt):
        train('run', before=lambda runner: runner.register_hook(InValidation(1)))
    assert not (tmp_path / 'run/summary.json').exists()
    train('other', **{'train_cfg.max_epochs': 1, 'randomness.seed': 5})
    train('run', load_from=f'{tmp_path}/other/epoch_1.pth', resume=True)
    record = json.loads((tmp_path / 'run/summary.json').read_text())
    other = json.loads((tmp_path / 'other/summary.json').read_text())
    assert record['student_accuracies'][0] == other['student_accuracies'][0]
    assert len(record['student_accuracies']) == 2 and first.iter


@pytest.mark.parametrize('epoch', [1, 2])
def test_a_record_that_lies_in_the_folder_is_not_taken_over(train, tmp_path, epoch):
    """One lies in this folder, and the checkpoint knows what it saw itself."""
    path = tmp_path / 'run/summary.json'
    train('other', **{'default_hooks.checkpoint.max_keep_ckpts': 9})
    other = json.loads((tmp_path / 'other/summary.json').read_text())
    steps = [step for step, _ in other['student_accuracies']]
    history = [[step, 99.5] for step in steps]
    path.parent.mkdir()
    text = dict(student_accuracies=history, agreement=99.5, validated_at=steps[-1])
    path.write_text(json.dumps(text))
    train('run', load_from=f'{tmp_path}/other/epoch_{epoch}.pth', resume=True)
    record = json.loads(path.read_text())
    for key in ('student_accuracies', 'agreement'):
        assert record[key] == other[key] != text[key], key


def test_the_endless_sampler_of_mmengine(train, tmp_path):
    """Its indices are a generator."""
    endless = {
        'model': dict(type='KD', alpha=1.0, selector=None),
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2, _delete_=True),
        'param_scheduler': None,
        'train_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True),
    }
    assert train(**endless).iter == 4


def test_an_averaged_student_is_kept_and_tested(train, toy_config, tmp_path):
    """With mmengine's EMAHook, student.pth is what validation saw, and so is a test of it."""
    average = dict(type='EMAHook', momentum=0.5)
    runner = train(custom_hooks=[average])
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    path = tmp_path / 'run' / 'student.pth'
    kept = load_classifier(path)
    expected = dict(hook.ema_model.module.student.named_parameters())
    last = dict(runner.model.student.named_parameters())
    for name, value in kept.named_parameters():
        assert torch.equal(value, expected[name])
    assert any((value != last[name]).any() for name, value in kept.named_parameters())

    for file in (path, tmp_path / 'run' / 'epoch_2.pth'):
        options = dict(custom_hooks=[average], load_from=str(file))
        tester = DistillRunner.from_cfg(toy_config(f'test of {file.stem}', **options))
        assert tester.test()['accuracy/top1'] == kept.meta['accuracy']
        for name, value in tester.model.student.named_parameters():
            assert torch.equal(value, expected[name])
