# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import sklearn.datasets
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.device import get_device, utils
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim.scheduler import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from mmdfkd.datasets import DigitsDataset
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.runner.distill_runner import acts
from mmdfkd.evaluation import Accuracy
from mmdfkd.models.classifiers import load_classifier, network_fingerprint, save_classifier
from mmdfkd.registry import LOOPS, METRICS, PARAM_SCHEDULERS
from mmdfkd.utils import UsageError
from mmdfkd.visualization.records import curve_of, read_history, unit_of

ROOT = Path(__file__).parents[3]
GAN = ('generator', 'discriminator')


def weights(path):
    return torch.load(path, weights_only=True)


def assert_same(first, second, path='state'):
    """Nested dicts and lists of equal tensors and values."""
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_same(first[key], second[key], f'{path}.{key}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f'{path}[{index}]')
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), path
    else:
        assert first == second, path


def check_speed(summary):
    """Images by seconds; both are rounded: to a thousandth of a second, to a tenth of an image."""
    seconds, images = summary['seconds'], summary['images_seen']
    low, high = images / (seconds + 5e-4) - 0.051, images / (seconds - 5e-4) + 0.051
    assert low < summary['images_per_second'] < high


# A run on the embedded benchmark --------------------------------------------------------------


@pytest.fixture(scope='module')
def digits_run(tmp_path_factory):
    """KD³ on 256 images of the glyph pool for 2 epochs; what was logged and which digits read."""
    folder = tmp_path_factory.mktemp('digits')
    base = ROOT / 'configs/_base_'
    text = '\n'.join(
        [
            f'_base_ = [{str(base / "models/lenet5_lenet5-half_digits.py")!r},',
            f'    {str(base / "datasets/digits_glyph-pool.py")!r},',
            f'    {str(base / "default_runtime.py")!r}]',
            "model = dict(type='KD3', selector=dict(threshold=0.5))",
            'train_dataloader = dict(dataset=dict(num_images=256), batch_size=64)',
            "optim_wrapper = dict(constructor='RoleOptimWrapperConstructor',",
            "    student=dict(optimizer=dict(type='Adam', lr=1e-3)))",
            "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)",
        ]
    )
    (folder / 'toy.py').write_text(text)
    cfg = Config.fromfile(folder / 'toy.py')
    cfg.work_dir = str(folder / 'run')
    cfg.default_hooks.pop('figures', None)
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMDFKD_CACHE_DIR', str(folder / 'cache'))
        init, load = DigitsDataset.__init__, sklearn.datasets.load_digits

        def only_test(self, split='train', **kwargs):
            read.append(split)
            if split != 'test':
                raise AssertionError('a data-free run opened its original training data')
            init(self, split, **kwargs)

        def load_digits(*args, **kwargs):
            read.append('scans')
            return load(*args, **kwargs)

        patch.setattr(DigitsDataset, '__init__', only_test)
        patch.setattr(sklearn.datasets, 'load_digits', load_digits)
        DistillRunner.from_cfg(cfg).train()
    (log,) = Path(cfg.work_dir).glob('*/*.log')
    return Path(cfg.work_dir), log.read_text(), read


def test_no_original_training_image_is_opened(digits_run):
    *_, read = digits_run
    # every reading of the scans was for the test split
    assert read and read == ['test', 'scans'] * (len(read) // 2)


def test_summary_says_what_was_done_and_what_came_of_it(digits_run):
    work_dir, *_ = digits_run
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert {
        'method': 'KD3',
        'teacher': 'LeNet5',
        'student': 'LeNet5-half',
        'dataset': 'digits',
        'train_images': 'glyphs',
        'seed': 0,
        'epoch': 2,
        'finished': True,
        'processes': 1,
        # 61,706 of LeNet5. The half's backbone: conv 1 -> 3, 3 -> 8, 8 -> 60 (5x5, bias):
        # 78 + 608 + 12,060 = 12,746; adapter 60 -> 120 (m = 60): 60*60 + 9*60*60 + 60*120 and
        # BatchNorm 2 (60 + 60 + 120): 43,680; the teacher's head 11,014. In all 67,440.
        'teacher_params': 61_706,
        'student_params': 67_440,
        # LeNet5: 28*28*6*25 + 10*10*16*150 + 120*400 + 120*84 + 84*10
        'teacher_macs': 117_600 + 240_000 + 48_000 + 10_080 + 840,
        # The half, 28*28*3*25 + 10*10*8*75 + 60*200, its adapter at one place, and the head
        'student_macs': 58_800 + 60_000 + 12_000 + (3_600 + 32_400 + 7_200) + 10_080 + 840,
    }.items() <= summary.items()
    teacher = load_classifier('mmdfkd://lenet5_digits')
    assert summary['teacher_accuracy'] == pytest.approx(teacher.meta['accuracy'], abs=0.01)
    assert summary['teacher_fingerprint'] == network_fingerprint(teacher)
    history = dict(summary['student_accuracies'])
    assert len(history) == 2
    assert summary['student_accuracy_last'] == list(history.values())[-1]
    assert summary['student_accuracy_best'] == max(history.values())
    assert summary['student_accuracy_mean'] == pytest.approx(sum(history.values()) / 2)
    spread = abs(history[min(history)] - history[max(history)]) / 2
    assert summary['student_accuracy_std'] == pytest.approx(spread)
    assert 0 <= summary['agreement'] <= 100
    assert summary['images_seen'] >= summary['images_used'] > 0
    assert summary['seconds'] > 0
    check_speed(summary)
    assert summary['versions']['torch'] == torch.__version__.partition('+')[0]
    assert re.fullmatch(r'[0-9a-f]{40}|unknown', summary['commit'])
    assert all(v != 'unknown' for v in summary['versions'].values())


def test_teachers_accuracy_is_logged_before_the_first_step(digits_run):
    _, log, _ = digits_run
    accuracy = re.search(r'Teacher LeNet5: \d+\.\d\d % on digits \(500 images\)', log)
    assert accuracy and accuracy.start() < log.index('Epoch(train)')


def test_student_file_stands_alone(digits_run):
    work_dir, *_ = digits_run
    student = load_classifier(work_dir / 'student.pth').eval()
    summary = json.loads((work_dir / 'summary.json').read_text())
    for key in ('method', 'teacher', 'dataset', 'seed', 'versions', 'commit'):
        assert student.meta[key] == summary[key]
    assert student.meta['accuracy'] == summary['student_accuracy_last']
    batch = DigitsDataset('test').__getitems__(range(500))
    with torch.no_grad():
        logits = student((batch['inputs'] - student.mean[0]) / student.std[0])
    hits = (logits.argmax(1) == batch['label']).sum().item()
    assert 100 * hits / 500 == pytest.approx(summary['student_accuracy_last'])


# The same and another seed --------------------------------------------------------------------


def test_seed_decides_the_student(train, tmp_path):
    for name, seed in (('first', 3), ('again', 3), ('other', 4)):
        train(name, **{'randomness.seed': seed, 'train_cfg.max_epochs': 1})
    first, again, other = (
        weights(tmp_path / name / 'student.pth')['state_dict']
        for name in ('first', 'again', 'other')
    )
    assert_same(first, again)
    assert not torch.equal(first['backbone.conv1.weight'], other['backbone.conv1.weight'])


# On a Mac -------------------------------------------------------------------------------------


@pytest.fixture
def mac(monkeypatch):
    """A machine with Apple's GPU, to which nothing can be moved here."""
    monkeypatch.setattr(utils, 'DEVICE', 'mps')
    assert get_device() == 'mps'
    with pytest.raises(RuntimeError):
        torch.ones(1).to(get_device())


def test_a_run_on_a_mac_stays_on_its_cpu(mac, train, toy_config):
    runner = train()
    assert {tensor.device.type for tensor in runner.model.state_dict().values()} == {'cpu'}
    cfg = toy_config(resume=True)
    cfg.train_cfg.max_epochs = 3
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 3


def test_networks_on_a_mac_have_plain_statistics(mac, toy_config):
    network = torch.nn.Sequential(torch.nn.SyncBatchNorm(2))
    network = DistillRunner.from_cfg(toy_config()).wrap_model(None, network)
    assert not isinstance(network[0], torch.nn.SyncBatchNorm)


def test_a_run_on_a_mac_is_one_process(mac, toy_config, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(UsageError, match='--launcher pytorch: a run on a Mac is one process'):
        DistillRunner.from_cfg(toy_config(launcher='pytorch'))


# Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'default_hooks.selection.interval': 2, 'train_cfg.max_epochs': 4},
        {'default_hooks.selection.view': 'train', 'model.selector.mode': 'random'},
        {'optim_wrapper.student.optimizer': dict(type='Adam', lr=1e-3, _delete_=True)},
    ],
    ids=['plain', 'interval', 'random', 'adam'],
)
def test_resumed_run_ends_like_an_uninterrupted_one(train, toy_config, tmp_path, changes):
    whole = train('whole', **{**changes, 'default_hooks.checkpoint.max_keep_ckpts': 9})
    last = whole.max_epochs
    cfg = toy_config('resumed', **changes)
    before = tmp_path / f'whole/epoch_{last - 1}.pth'
    cfg.merge_from_dict(dict(load_from=str(before), resume=True))
    torch.manual_seed(99)  # a new process starts with other generators
    resumed = DistillRunner.from_cfg(cfg)
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (whole.epoch, whole.iter)
    ends = [weights(tmp_path / name / f'epoch_{last}.pth') for name in ('whole', 'resumed')]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[0][key], ends[1][key], key)
    for key in ('train/loss', 'val/accuracy/top1'):
        histories = [end['message_hub']['log_scalars'][key] for end in ends]
        assert_same(*histories, key)
        assert len(histories[0]['log']) >= last - 1
    state = weights(before)['state_dict']
    assert not torch.equal(
        state['student.backbone.conv1.weight'],
        ends[0]['state_dict']['student.backbone.conv1.weight'],
    )
    students = [weights(tmp_path / name / 'student.pth') for name in ('whole', 'resumed')]
    assert_same(students[0]['state_dict'], students[1]['state_dict'])


@pytest.mark.parametrize('method', ['KD3', 'DFAD'])
def test_a_resumed_run_keeps_its_seed(train, toy_config, generative, tmp_path, method):
    changes = generative if method == 'DFAD' else {'model.selector.min_selected': 48}
    train('whole', **changes, **{'randomness.seed': 3})
    cfg = toy_config('resumed', **changes, load_from=f'{tmp_path}/whole/epoch_1.pth', resume=True)
    assert cfg.randomness.seed == 0
    DistillRunner.from_cfg(cfg).train()
    ends = [weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'resumed')]
    assert_same(ends[0]['state_dict'], ends[1]['state_dict'])
    assert json.loads((tmp_path / 'resumed/summary.json').read_text())['seed'] == 3


def test_latents_keep_a_seed_of_their_own(train, toy_config, generative, tmp_path):
    generative['train_dataloader.dataset']['seed'] = 5
    runner = train('whole', **copy.deepcopy(generative), **{'randomness.seed': 3})
    assert runner.train_dataloader.dataset.seed == 5
    cfg = toy_config('next', **generative, load_from=f'{tmp_path}/whole/epoch_1.pth', resume=True)
    resumed = DistillRunner.from_cfg(cfg)
    resumed.train()
    assert (resumed.seed, resumed.train_dataloader.dataset.seed) == (3, 5)


def test_a_run_may_be_resumed_for_longer(train, toy_config, tmp_path):
    cosine = {'param_scheduler.student': [dict(type='CosineAnnealingLR', T_max=4)]}
    train('whole', **cosine, **{'train_cfg.max_epochs': 4})
    train('run', **cosine, **{'train_cfg.max_epochs': 1})
    train('run', **cosine, **{'train_cfg.max_epochs': 4, 'resume': True})
    ends = [weights(tmp_path / name / 'epoch_4.pth') for name in ('whole', 'run')]
    rates = [[g['lr'] for g in end['optimizer']['student']['param_groups']] for end in ends]
    third = 0.05 * (1 + math.cos(math.pi * 3 / 4)) / 2
    assert rates[0] == rates[1] == [pytest.approx(third)]


SHORT = {'model': dict(type='KD', alpha=1.0, selector=None), 'train_cfg.max_epochs': 2}
LONG = {'train_cfg.max_epochs': 4, 'default_hooks.checkpoint.max_keep_ckpts': 9}
COSINE = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
SCHEDULES = [
    [dict(type='LinearLR', start_factor=1.0, end_factor=0.1)],
    [dict(type='PolyLR', power=1.0)],
    [dict(type='CosineAnnealingLR')],
    [dict(type='OneCycleLR', eta_max=0.2, total_steps=24, by_epoch=False)],
    [
        dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
    ],
]


def rates(path):
    return [group['lr'] for group in weights(path)['optimizer']['student']['param_groups']]


def rates_to_compare(tmp_path):
    """Of the epochs behind a resumption, in the run that was resumed and in one that was not."""
    for epoch in (3, 4):
        yield [rates(tmp_path / f'{run}/epoch_{epoch}.pth') for run in ('parts', 'whole')]


@pytest.mark.parametrize('schedule', SCHEDULES, ids=[parts[0]['type'] for parts in SCHEDULES])
def test_a_longer_run_has_the_rates_of_a_run_as_long_from_then_on(train, tmp_path, schedule):
    changes = {**SHORT, 'param_scheduler.student': schedule}
    train('whole', **{**changes, **LONG})
    train('parts', **changes)
    train('parts', **{**changes, **LONG}, resume=True)
    for found, expected in rates_to_compare(tmp_path):
        assert found == expected and min(found) >= 0


class InSecondEpoch(Hook):
    """Kill a run there."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt


ONE_CYCLE = dict(type='OneCycleLR', total_steps=24, by_epoch=False)


def test_a_cycle_rises_as_high_as_its_config_says(train, tmp_path):
    low, high = ({'param_scheduler.student': [dict(ONE_CYCLE, eta_max=e)]} for e in (0.2, 0.4))
    train('whole', **SHORT | LONG | high)
    train('parts', **SHORT | low)
    train('parts', **SHORT | LONG | high, resume=True)
    for found, expected in rates_to_compare(tmp_path):
        assert found == expected


def test_a_rate_that_a_hook_has_changed_is_gone_on_with(train, tmp_path):
    """There is no schedule that would know of it; another rate in the config counts still."""

    class Decay(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 1:
                runner.optim_wrapper['student'].optimizer.param_groups[0]['lr'] = 0.005

    alone = {**SHORT, 'param_scheduler.student': []}
    train('run', before=lambda runner: runner.register_hook(Decay()), **alone)
    train('run', **alone | LONG, resume=True)
    assert rates(tmp_path / 'run/epoch_4.pth') == [0.005]
    other = {'optim_wrapper.student.optimizer.lr': 0.03, 'train_cfg.max_epochs': 5}
    train('run', **alone | LONG | other, resume=True)
    assert rates(tmp_path / 'run/epoch_5.pth') == [0.03]


@PARAM_SCHEDULERS.register_module(force=True)
class TableLR(LRSchedulerMixin, _ParamScheduler):
    """Factors of the rate by epoch: a schedule of a user's own."""

    def __init__(self, optimizer, table, **settings):
        self.table = torch.tensor(table)
        super().__init__(optimizer, **settings)

    def _get_value(self):
        return [value * float(self.table[self.last_step]) for value in self.base_values]


@pytest.mark.parametrize(('later', 'expected'), [(0.2, 0.01), (0.6, 0.03)])
def test_a_schedule_may_keep_tensors(train, tmp_path, later, expected):
    changes = {**SHORT, 'train_cfg.max_epochs': 3}
    first, then = (
        {'param_scheduler.student': [dict(type='TableLR', table=[1, 0.5, end])]}
        for end in (0.2, later)
    )
    with pytest.raises(KeyboardInterrupt):
        train(before=lambda runner: runner.register_hook(InSecondEpoch()), **changes | first)
    train(**changes | then, resume=True)
    assert rates(tmp_path / 'run/epoch_2.pth') == [pytest.approx(expected)]


@pytest.mark.parametrize(
    'change',
    [
        {'train_dataloader.batch_size': 32},
        {'optim_wrapper.student.optimizer.lr': 0.02},
        {'param_scheduler.student': [dict(COSINE, eta_min=0.01)]},
    ],
)
def test_schedules_of_a_resumed_run_are_those_of_its_config(train, tmp_path, change):
    """As many iterations as two processes would have, another rate, another schedule."""
    changes = {**SHORT, **LONG, 'param_scheduler.student': [COSINE]}
    train('whole', **{**changes, **change})
    train('other', **changes)
    resumed = dict(load_from=f'{tmp_path}/other/epoch_2.pth', resume=True)
    train('parts', **{**changes, **change}, **resumed)
    for found, expected in rates_to_compare(tmp_path):
        assert found == pytest.approx(expected)


@pytest.mark.parametrize('before', [[dict(type='MultiStepLR', milestones=[1])], []])
def test_a_rate_without_a_schedule_is_that_of_the_config(train, tmp_path, before):
    train('run', **SHORT, **{'param_scheduler.student': before})
    constant = {'param_scheduler.student': [], 'optim_wrapper.student.optimizer.lr': 0.03}
    train('run', **{**SHORT, **LONG, **constant}, resume=True)
    assert rates(tmp_path / 'run/epoch_3.pth') == [0.03]


PLATEAU = dict(
    type='ReduceOnPlateauLR',
    monitor='accuracy/top1',
    rule='greater',
    patience=0,
    factor=0.5,
    threshold=1000,
)


def test_a_plateau_goes_on_to_the_new_end(train, tmp_path):
    """No accuracy is high enough: each validation but the first halves the rate."""
    changes = {**SHORT, 'param_scheduler.student': [PLATEAU]}
    train('whole', **{**changes, **LONG})
    train('parts', **changes)
    train('parts', **{**changes, **LONG}, resume=True)
    for found, expected in rates_to_compare(tmp_path):
        assert found == expected
    assert found[0] < 0.05 / 2
    loop = dict(_delete_=True, by_epoch=False, max_iters=4, val_interval=2)
    train('iterations', **{**changes, 'train_cfg': loop, 'model': SHORT['model']})


@PARAM_SCHEDULERS.register_module(force=True)
class HalvingLR(LRSchedulerMixin, _ParamScheduler):
    """Each validation halves the rate: a schedule of a user's own."""

    need_val_args = True

    def step(self, metrics=None):
        if metrics is None:
            self._global_step += 1
            return
        for group in self.optimizer.param_groups:
            group['lr'] /= 2


@pytest.mark.parametrize('schedule', [PLATEAU, dict(type='HalvingLR')])
@pytest.mark.parametrize('best', [None, 'accuracy/top1'])  # of a best epoch it is written again
def test_a_schedule_hears_of_each_validation_once(train, tmp_path, schedule, best):
    """Whether its checkpoint was written before it or behind."""
    changes = {
        **SHORT,
        **LONG,
        'param_scheduler.student': [schedule],
        'default_hooks.checkpoint.save_best': best,
    }
    train('whole', **changes)
    with pytest.raises(KeyboardInterrupt):
        train('parts', before=lambda runner: runner.register_hook(InSecondEpoch()), **changes)
    train('parts', **changes, resume=True)
    for found, expected in rates_to_compare(tmp_path):
        assert found == expected


def test_what_cannot_be_resumed(train, tmp_path):
    train('run', **SHORT, **{'default_hooks.checkpoint.save_best': 'accuracy/top1'})
    (best,) = (tmp_path / 'run').glob('best*.pth')
    with pytest.raises(UsageError, match=r'best_.*\.pth holds a network, .*of the best epoch'):
        train('best', **SHORT, load_from=str(best), resume=True)
    adam = {'optim_wrapper.student.optimizer': dict(type='Adam', lr=1e-3, _delete_=True)}
    with pytest.raises(UsageError, match=r'another optimiser of student \(SGD, 1 .* \(Adam, 1\)'):
        train('run', **SHORT, **adam, resume=True)
    parts = {'optim_wrapper.student.paramwise_cfg': dict(bias_decay_mult=0.0)}
    with pytest.raises(UsageError, match=r'\(SGD, 1 groups .* \(SGD, \d\d\)'):
        train('run', **SHORT, **parts, resume=True)
    deeper = {'model.student.backbone.depth': 14}
    with pytest.raises(UsageError, match=r'of another network: .* student knows \d+ .* \d+ in'):
        train('run', **SHORT, **deeper, resume=True)


def test_a_training_of_others_cannot_be_resumed(finished, train, tmp_path):
    """It has an optimiser, and does not say how far it went as ours do."""
    known = weights(f'{finished.work_dir}/epoch_2.pth')
    torch.save(dict(state_dict=known['state_dict'], optimizer={}, epoch=3), tmp_path / 'other.pth')
    with pytest.raises(
        UsageError, match=r'other\.pth holds a network, not the state of a training'
    ):
        train(load_from=str(tmp_path / 'other.pth'), resume=True)


def test_what_a_checkpoint_says_of_its_optimisers(finished, train, tmp_path):
    """One that does not name them, as of earlier releases, is held against their numbers."""
    checkpoint, path = weights(f'{finished.work_dir}/epoch_2.pth'), tmp_path / 'edited.pth'
    assert checkpoint['meta'].pop('optimizers') == dict(student='SGD')
    torch.save(checkpoint, path)
    assert train(load_from=str(path), resume=True).epoch == 2
    checkpoint['optimizer']['student']['param_groups'][0]['params'].pop()
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match='student knows 41 tensors there, 42 in this run'):
        train(load_from=str(path), resume=True)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_schedule_of_iterations_goes_on_behind_those_of_its_run(train, tmp_path, by_epoch):
    """Epochs of a selection are shorter than its pool, and some runs have none."""
    schedule = dict(type='ExponentialLR', gamma=0.9, end=99, by_epoch=False)
    changes = {'param_scheduler.student': [schedule]}
    if not by_epoch:
        loop = dict(_delete_=True, by_epoch=False, max_iters=2, val_interval=2)
        changes |= {'train_cfg': loop, 'model': SHORT['model']}
        changes['default_hooks.checkpoint'] = dict(by_epoch=False, interval=2)
    first = train(**changes, **({'train_cfg.max_epochs': 1} if by_epoch else {}))
    schedule['gamma'] = 0.8
    if not by_epoch:
        changes['train_cfg']['max_iters'] = 4
    resumed = train(**changes, resume=True)
    assert 0 < first.iter < resumed.iter
    (rate,) = resumed.optim_wrapper['student'].get_lr()['lr']
    assert rate == pytest.approx(0.05 * 0.8**resumed.iter)


def test_a_copied_run_leaves_the_best_of_the_other_alone(train, tmp_path):
    best = {'default_hooks.checkpoint.save_best': 'accuracy/top1'}
    train('run', **SHORT, **best)
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    before = sorted(path.name for path in (tmp_path / 'run').glob('best*'))

    def improve(runner):
        runner.model.val_step = lambda batch: [
            dict(logits=F.one_hot(batch['label'], 5).float(), label=batch['label'])
        ]

    train('copy', before=improve, **{**SHORT, 'train_cfg.max_epochs': 3}, **best, resume=True)
    assert sorted(path.name for path in (tmp_path / 'run').glob('best*')) == before
    assert [path.name for path in (tmp_path / 'copy').glob('best*')] == [
        'best_accuracy_top1_epoch_3.pth'
    ]


@pytest.mark.parametrize('key', ['accuracy', 'top1', 'accuracy/top5'])
def test_what_is_best_must_be_measured(train, key):
    with pytest.raises(UsageError, match=rf"save_best='{key}' .*: those are accuracy/top1, agr"):
        train(**{'default_hooks.checkpoint.save_best': key})


def test_there_is_no_agreement_without_a_teacher(train, teacher_file):
    images = dict(input_shape=(1, 16, 16), mean=[127.5], std=[64.0])
    student = dict(load_classifier(teacher_file).config, **images)
    alone = dict(_delete_=True, type='Supervised', student=student)
    with pytest.raises(UsageError, match=r"save_best='agreement/teacher' .*: those are accuracy/t"):
        train(model=alone, **{'default_hooks.checkpoint.save_best': 'agreement/teacher'})


class AskedForTheBest(Hook):
    """A hook of a user's own that has the attribute too."""

    save_best = True


@METRICS.register_module(force=True)
class ErrorRate(Accuracy):
    """A metric of a user's own that reports something else than its parent."""

    default_prefix = 'error'

    def compute_metrics(self, results):
        return {'rate': 100 - super().compute_metrics(results)['top1']}


def test_what_users_write_may_measure_anything(train):
    best = dict(save_best=['error/rate', 'agreement/teacher'], less_keys=['error'])
    runner = train(
        before=lambda runner: runner.register_hook(AskedForTheBest()),
        val_evaluator=[dict(type='ErrorRate'), dict(type='Agreement')],
        **SHORT,
        **{'default_hooks.checkpoint': best},
    )
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    assert hook.rules == ['less', 'greater']


@pytest.mark.parametrize('key', ['auto', 'agreement/teacher'])
def test_the_best_by_agreement(train, tmp_path, key):
    """Without labels there is nothing else, and more of it is better."""
    best = {'default_hooks.checkpoint.save_best': key, 'val_evaluator': [dict(type='Agreement')]}
    runner = train(**SHORT, **best)
    name = f'best_{key}_epoch_*.pth'.replace('/', '_').replace('auto', 'agreement_teacher')
    assert len(list((tmp_path / 'run').glob(name))) == 1
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    assert hook.rules == ['greater']


def test_the_best_of_a_run_that_goes_on_elsewhere(train, tmp_path):
    """Nothing in the new folder is as good as what is in the old one, and one is the best of it."""
    best = {'default_hooks.checkpoint.save_best': 'accuracy/top1'}
    train('run', **SHORT, **best)

    def spoil(runner):
        runner.model.val_step = lambda batch: [
            dict(logits=1 - F.one_hot(batch['label'], 5).float(), label=batch['label'])
        ]

    start = dict(load_from=f'{tmp_path}/run/epoch_2.pth', resume=True)
    train('next', before=spoil, **{**SHORT, 'train_cfg.max_epochs': 3}, **best, **start)
    assert len(list((tmp_path / 'next').glob('best_accuracy_top1_epoch_*.pth'))) == 1


def test_a_run_that_has_no_optimisers_yet_can_be_saved(toy_config, tmp_path):
    runner = DistillRunner.from_cfg(toy_config())
    runner.save_checkpoint(
        str(tmp_path), 'begin.pth', save_optimizer=False, save_param_scheduler=False
    )
    assert 'optimizers' not in weights(tmp_path / 'begin.pth')['meta']


@pytest.mark.parametrize('key', ['max_iters', 'val_interval'])
def test_a_whole_number_may_be_written_as_a_float(train, key):
    loop = dict(_delete_=True, by_epoch=False, max_iters=4, val_interval=2)
    runner = train(train_cfg={**loop, key: 4e0}, model=SHORT['model'], param_scheduler=None)
    assert runner.iter == 4


def test_nothing_where_mmengine_has_something(train):
    """None is as good as a key that is not there."""
    train(**SHORT, randomness=None, env_cfg=None, **{'param_scheduler.student': None})


@pytest.fixture
def tf32():
    """PyTorch's two switches: of convolutions and of products."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    yield lambda: [place.allow_tf32 for place in places]
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value


@pytest.mark.parametrize(
    ('value', 'expected'),
    [(True, [True, True]), (False, [False, False]), (None, [True, False])],
)
def test_tf32_is_as_the_config_says(toy_config, tf32, value, expected):
    """Where it says nothing, it is as PyTorch has it: in convolutions alone."""
    DistillRunner.from_cfg(toy_config(**{'env_cfg.tf32': value}))
    assert tf32() == expected


def test_tf32_is_a_switch(toy_config):
    with pytest.raises(UsageError, match=r"env_cfg\.tf32='no'.*True, False"):
        DistillRunner.from_cfg(toy_config(**{'env_cfg.tf32': 'no'}))


def test_latents_follow_the_seed(toy_config, generative):
    first = []
    for seed in (0, 1):
        runner = DistillRunner.from_cfg(toy_config(**generative, **{'randomness.seed': seed}))
        first.append(next(iter(runner.train_loop.dataloader))['latent'])
    assert not torch.equal(*first)


def test_a_run_that_counts_iterations_has_a_record(train, toy_config, tmp_path):
    changes = {
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2, _delete_=True),
        'param_scheduler': None,
        'model': dict(type='KD', alpha=1.0, selector=None),
        'default_hooks.checkpoint': dict(by_epoch=False, interval=2),
    }
    train('whole', **changes)
    cfg = toy_config('resumed', **changes, load_from=f'{tmp_path}/whole/iter_2.pth', resume=True)
    DistillRunner.from_cfg(cfg).train()
    for name in ('whole', 'resumed'):
        summary = json.loads((tmp_path / name / 'summary.json').read_text())
        assert (summary['images_seen'], summary['images_used']) == (64, 96)
        assert 0 < summary['seconds'] < 60
        check_speed(summary)


def test_curves_of_a_run_that_counts_iterations_do_so(train, toy_config, tmp_path):
    changes = {
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2, _delete_=True),
        'param_scheduler': None,
        'model': dict(type='KD', alpha=1.0, selector=None),
        'default_hooks.checkpoint': dict(by_epoch=False, interval=2),
        'default_hooks.logger.interval': 1,
    }
    train('run', **changes)
    (start,) = tmp_path.glob('run/*/vis_data')
    start.parent.rename(tmp_path / 'run/20000101_000000')  # the next one may be of the same second
    resumed = dict(load_from=f'{tmp_path}/run/iter_2.pth', resume=True)
    DistillRunner.from_cfg(toy_config('run', **changes, **resumed)).train()
    assert len(list(tmp_path.glob('run/*/vis_data/scalars.json'))) == 2
    records = read_history(tmp_path / 'run')
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    found = [list(point) for point in curve_of(records, 'accuracy/top1')]
    assert found == summary['student_accuracies'] and [step for step, _ in found] == [2, 4]
    assert [step for step, _ in curve_of(records, 'loss')] == [1, 2, 3, 4]
    assert unit_of(records, 'accuracy/top1') == unit_of(records, 'loss') == 'iteration'


def test_curves_of_a_run_in_epochs_do_so(finished):
    records = read_history(finished.work_dir)
    assert [step for step, _ in curve_of(records, 'accuracy/top1')] == [1, 2]
    assert unit_of(records, 'accuracy/top1') == 'epoch'


def test_resumed_run_has_the_whole_record(train, tmp_path):
    def stop_in_third_epoch(runner):
        class Stop(Hook):
            def before_train_epoch(self, runner):
                if runner.epoch == 2:
                    raise KeyboardInterrupt

        runner.register_hook(Stop())

    length = {'train_cfg.max_epochs': 3}
    train('whole', **length)
    with pytest.raises(KeyboardInterrupt):
        train('run', before=stop_in_third_epoch, **length)
    partial = json.loads((tmp_path / 'run/summary.json').read_text())
    assert (partial['finished'], partial['epoch']) == (False, 2)
    for _ in range(2):  # the second time there is nothing left to train
        train('run', resume=True, **length)
        whole, resumed = (
            json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('whole', 'run')
        )
        assert resumed['finished'] and resumed['seconds'] > partial['seconds']
        for key in whole.keys() - {'seconds', 'images_per_second'}:
            assert resumed[key] == whole[key], key


def test_the_record_of_what_is_done_again_is_forgotten(train, tmp_path):
    keep = {'default_hooks.checkpoint.max_keep_ckpts': 9}
    train(**keep, **{'train_cfg.max_epochs': 3})
    whole = json.loads((tmp_path / 'run/summary.json').read_text())
    first = str(tmp_path / 'run/epoch_1.pth')
    train(**keep, **{'train_cfg.max_epochs': 2}, load_from=first, resume=True)
    again = json.loads((tmp_path / 'run/summary.json').read_text())
    assert again['student_accuracies'] == whole['student_accuracies'][:2]
    train(**keep, **{'train_cfg.max_epochs': 1}, load_from=first, resume=True)
    over = json.loads((tmp_path / 'run/summary.json').read_text())
    assert over['student_accuracies'] == whole['student_accuracies'][:1]
    assert over['agreement'] is None  # the record's is that of the second epoch


def test_only_a_selection_that_outlives_its_epoch_is_kept(finished, train, tmp_path):
    assert 'selected_indices' not in weights(Path(finished.work_dir, 'epoch_2.pth'))
    train(**{'train_cfg.max_epochs': 1, 'default_hooks.selection.interval': 2})
    assert weights(tmp_path / 'run/epoch_1.pth')['selected_indices'].dtype == torch.int64


def test_another_teacher_is_refused(finished, train, tmp_path, teacher_file):
    other = load_classifier(teacher_file)
    with torch.no_grad():
        other.head.fc.bias[0] += 1e-3
    save_classifier(tmp_path / 'other.pth', other, {})
    changes = {
        'model.teacher.checkpoint': str(tmp_path / 'other.pth'),
        'load_from': f'{finished.work_dir}/epoch_2.pth',
    }
    for resume in (True, False):
        with pytest.raises(
            UsageError, match=r'another teacher \(fingerprint .*model\.teacher\.che'
        ):
            train(**changes, resume=resume)


def test_weights_alone_cannot_be_resumed(finished, train, tmp_path):
    torch.save(finished.model.state_dict(), tmp_path / 'bare.pth')
    with pytest.raises(UsageError, match=r'bare\.pth holds a network.*epoch_N\.pth'):
        train(load_from=str(tmp_path / 'bare.pth'), resume=True)


def test_a_student_file_cannot_be_resumed(finished, train):
    with pytest.raises(UsageError, match=r'student\.pth holds a network.*epoch_N\.pth'):
        train(load_from=f'{finished.work_dir}/student.pth', resume=True)


# Checkpoints ----------------------------------------------------------------------------------


def test_checkpoint_is_plain_data_without_the_teacher(finished):
    checkpoint = weights(f'{finished.work_dir}/epoch_2.pth')  # weights_only
    assert {name.split('.')[0] for name in checkpoint['state_dict']} == {
        'student',
        'student_head',
        'teacher_head',
    }
    assert checkpoint['meta']['teacher_fingerprint'] == finished.model.teacher_fingerprint()
    losses = checkpoint['message_hub']['log_scalars']['train/loss']['log']
    assert losses == finished.message_hub.get_scalar('train/loss').data[0].tolist()


def test_a_failing_write_keeps_the_old_file(finished, tmp_path, monkeypatch):
    finished.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    before = (tmp_path / 'epoch_1.pth').read_bytes()

    def full_disk(self, content, path):
        Path(path).write_bytes(content[: len(content) // 2])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', full_disk)
    with pytest.raises(OSError, match='No space'):
        finished.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    assert (tmp_path / 'epoch_1.pth').read_bytes() == before


def test_other_processes_write_no_checkpoint(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(finished, '_rank', 1)
    finished.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_one_epoch_at_most(train, toy_config, tmp_path, monkeypatch):
    put = LocalBackend.put

    def full_disk(self, content, path):
        if not list((tmp_path / 'run').glob('epoch_2.pth')):
            return put(self, content, path)
        Path(path).write_bytes(content[:1000])
        raise OSError(28, 'No space left on device')

    length = {'train_cfg.max_epochs': 3}
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr(LocalBackend, 'put', full_disk)
        train(**length)
    assert Path((tmp_path / 'run/last_checkpoint').read_text()).name == 'epoch_2.pth'
    runner = train(resume=True, **length)
    assert runner.epoch == 3


def test_student_file_and_checkpoint_evaluate_alike(finished, toy_config):
    results = []
    for name in ('student.pth', 'epoch_2.pth'):
        cfg = toy_config('test', load_from=f'{finished.work_dir}/{name}')
        results.append(DistillRunner.from_cfg(cfg).test())
    summary = json.loads(Path(finished.work_dir, 'summary.json').read_text())
    assert results[0] == results[1]
    assert results[0]['accuracy/top1'] == summary['student_accuracy_last']
    assert results[0]['agreement/teacher'] == summary['agreement']


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'model.student.backbone.widths': (2, 2, 6)}, 'other shapes'),
        ({'model.adapter': dict(form='linear')}, 'in part'),
    ],
)
def test_checkpoint_of_another_student_is_refused(finished, toy_config, change, named):
    for name in ('student.pth', 'epoch_2.pth'):
        cfg = toy_config('test', load_from=f'{finished.work_dir}/{name}', **change)
        with pytest.raises(UsageError, match=named):
            DistillRunner.from_cfg(cfg).test()


def test_no_checkpoint_changes_the_teacher(train, finished, tmp_path):
    train('own', **{'model.classifier': 'own_soft', 'train_cfg.max_epochs': 1})
    for name in ('student.pth', 'epoch_1.pth'):
        with pytest.raises(UsageError, match=r"another classifier .*model\.classifier='shared'"):
            train(load_from=f'{tmp_path}/own/{name}')
    train('next', load_from=f'{finished.work_dir}/student.pth')  # that of the same teacher


def test_hooks_see_the_whole_of_which_a_student_is_loaded(finished, toy_config):
    """mmengine's EMAHook would test an average of what was there before."""
    seen = []

    class Look(Hook):
        def after_load_checkpoint(self, runner, checkpoint):
            seen.append(copy.deepcopy(dict(checkpoint['state_dict'])))

    runner = DistillRunner.from_cfg(toy_config('test'))
    runner.register_hook(Look())
    runner.load_checkpoint(f'{finished.work_dir}/student.pth')
    assert_same(seen, [dict(runner.model.state_dict())])
    student = weights(f'{finished.work_dir}/student.pth')['state_dict']
    for name, value in student.items():
        assert torch.equal(seen[0][f'student.{name}'], value), name


def test_what_was_loaded_by_hand_stays(finished, toy_config):
    runner = DistillRunner.from_cfg(toy_config('test', load_from='elsewhere.pth'))
    runner.load_checkpoint(f'{finished.work_dir}/student.pth')
    runner.load_or_resume()  # as each test does


# Loaders and schedules ------------------------------------------------------------------------


def test_schedules_of_a_selection_count_epochs(train):
    cosine = dict(type='CosineAnnealingLR', T_max=2, convert_to_iter_based=True)
    with pytest.raises(UsageError, match=r'param_scheduler\.student: convert_to_iter_based.*Leave'):
        train(param_scheduler=dict(student=[cosine]))
    whole = dict(type='KD', alpha=1.0, selector=None)
    runner = train(param_scheduler=dict(student=[cosine]), model=whole)
    last = 0.05 * (1 + math.cos(math.pi * 11 / 12)) / 2  # of 12 steps
    assert runner.optim_wrapper.get_lr()['student.lr'] == [pytest.approx(last)]


def test_a_converted_schedule_in_a_run_that_counts_iterations(train):
    """Its milestone, after two epochs of six iterations, is one of 18."""
    step = dict(type='MultiStepLR', milestones=[2], end=3, convert_to_iter_based=True)
    loop = dict(_delete_=True, by_epoch=False, max_iters=18, val_interval=18)
    runner = train(train_cfg=loop, model=SHORT['model'], param_scheduler=dict(student=[step]))
    assert runner.optim_wrapper['student'].get_lr()['lr'] == [pytest.approx(0.05 / 10)]


@LOOPS.register_module(force=True)
class LoopOfOnesOwn(BaseLoop):
    """A loop that has epochs, and is none of mmengine's."""

    def __init__(self, runner, dataloader, max_epochs):
        super().__init__(runner, dataloader)
        self.inner = EpochBasedTrainLoop(runner, self.dataloader, max_epochs)

    def __getattr__(self, name):
        return getattr(self.__dict__['inner'], name)

    def run(self):
        return self.inner.run()


def test_a_schedule_of_epochs_in_a_loop_of_ones_own(train):
    loop = dict(_delete_=True, type='LoopOfOnesOwn', max_epochs=2)
    runner = train(train_cfg=loop, model=SHORT['model'])
    assert runner.optim_wrapper['student'].get_lr()['lr'] == [pytest.approx(0.05 / 10)]


# When things go wrong -------------------------------------------------------------------------


class BrokenLoss(Hook):
    """Make the student's weights NaN in the second epoch."""

    def __init__(self, when):
        self.when = when

    def before_train_epoch(self, runner):
        if self.when == 'before' and runner.epoch == 1:
            self.destroy(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if self.when == 'last update' and runner.epoch == 1 and last:
            self.destroy(runner)

    @staticmethod
    def destroy(runner):
        with torch.no_grad():
            runner.model.student.backbone.conv1.weight.fill_(float('nan'))


@pytest.mark.parametrize('when', ['before', 'last update'])
def test_nan_stops_before_anything_is_overwritten(train, tmp_path, when):
    with pytest.raises(UsageError) as error:
        train(before=lambda runner: runner.register_hook(BrokenLoss(when)))
    message = str(error.value)
    assert 'NaN or infinite in epoch 2' in message
    assert 'last good checkpoint is' in message and 'epoch_1.pth' in message
    assert 'optim_wrapper.*.optimizer.lr' in message
    state = weights(tmp_path / 'run/epoch_1.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())
    assert not (tmp_path / 'run/epoch_2.pth').exists()
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('epoch_1.pth')


def test_nan_in_the_first_epoch_says_there_is_no_checkpoint(train):
    with pytest.raises(UsageError, match='No checkpoint was written yet'):
        train(**{'optim_wrapper.student.optimizer.lr': 1e30})


def test_nan_in_a_short_run_that_counts_iterations(train, tmp_path):
    changes = {
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=4, _delete_=True),
        'param_scheduler': None,
        'model': dict(type='KD', alpha=1.0, selector=None),
        'default_hooks.checkpoint': dict(by_epoch=False, interval=4),
        'optim_wrapper.student.optimizer.lr': 1e30,
    }
    with pytest.raises(UsageError, match='NaN or infinite.*No checkpoint was written yet'):
        train(**changes)
    assert not list((tmp_path / 'run').glob('*.pth'))


# Options --------------------------------------------------------------------------------------


def test_without_validation(train, tmp_path, without_validation):
    train(**without_validation)
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['finished']
    for key in ('teacher_accuracy', 'student_accuracy_last', 'agreement', 'dataset'):
        assert summary[key] is None
    assert load_classifier(tmp_path / 'run/student.pth').num_classes == 5


def test_validation_without_labels_measures_agreement(train, tmp_path):
    train(
        **{
            'train_cfg.max_epochs': 1,
            'val_dataloader.dataset.labelled': False,
            'val_evaluator': [dict(type='Agreement')],
        }
    )
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['student_accuracy_last'] is None and 0 <= summary['agreement'] <= 100


def test_learning_rates_of_all_roles_are_scaled(train):
    runner = train(
        **{
            'auto_scale_lr': dict(enable=True, base_batch_size=64),
            'param_scheduler': None,
            'train_cfg.max_epochs': 1,
        }
    )
    (rate,) = runner.optim_wrapper['student'].get_lr()['lr']
    assert rate == pytest.approx(0.05 * 16 / 64)  # linear in the batch size


def test_a_gan_learns_from_batches_of_its_own(train, hybrid):
    """The loader's batches, of the student, are 16; one process leaves the GAN as it is."""
    before = dict.fromkeys(GAN, 1e-3)
    scaled = {'auto_scale_lr': dict(enable=True, base_batch_size=64), 'param_scheduler': None}
    runner = train(**hybrid, **scaled)
    rates = {role: wrapper.get_lr()['lr'][0] for role, wrapper in runner.optim_wrapper.items()}
    assert rates['student'] == pytest.approx(0.05 * 16 / 64)
    assert {role: rates[role] for role in GAN} == before


def test_more_processes_make_the_batches_of_a_gan_larger(toy_config, hybrid):
    runner = DistillRunner.from_cfg(toy_config(**hybrid))
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._world_size = 4
    runner.scale_lr(wrapper, dict(enable=True, base_batch_size=32))
    rates = {role: rate for role, (rate,) in wrapper.get_lr().items() if role.endswith('.lr')}
    expected = {f'{role}.lr': 4 * 1e-3 for role in GAN}
    assert rates == pytest.approx({'student.lr': 0.05 * 4 * 16 / 32, **expected})


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('train_cfg.max_epochs', -1),
        ('train_cfg.max_epochs', 10.5),
        ('train_cfg.val_interval', 0),
        ('optim_wrapper.student.optimizer.lr', -1.0),
    ],
)
def test_numbers_out_of_range_are_named(train, key, value):
    with pytest.raises(UsageError, match=rf'({key.split(".")[-1]}|learning rate).*{value}'):
        train(**{key: value})


def test_iterations_out_of_range_are_named(train):
    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=0, val_interval=1)
    with pytest.raises(UsageError, match=r'train_cfg\.max_iters.*0'):
        train(train_cfg=loop, param_scheduler=None)


def test_a_schedule_of_epochs_in_a_run_that_counts_iterations(train):
    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    whole = dict(type='KD', alpha=1.0, selector=None)
    with pytest.raises(UsageError, match='student: MultiStepLR counts epochs, and train_cfg has'):
        train(train_cfg=loop, model=whole)


def test_a_schedule_that_begins_behind_the_end(train):
    schedule = [dict(type='MultiStepLR', begin=2, milestones=[1])]
    with pytest.raises(UsageError, match=r'student: MultiStepLR begins after 2 epochs.* has 2'):
        train(**{'param_scheduler.student': schedule})


def test_a_copied_run_is_resumed_from_its_own_checkpoint(train, toy_config, tmp_path):
    train('whole')
    shutil.copytree(tmp_path / 'whole', tmp_path / 'copy')
    assert str(tmp_path / 'whole') in (tmp_path / 'copy/last_checkpoint').read_text()
    shutil.rmtree(tmp_path / 'whole')
    cfg = toy_config('copy', **{'train_cfg.max_epochs': 3})
    cfg.resume = True
    runner = DistillRunner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 3 and (tmp_path / 'copy/epoch_3.pth').exists()


def test_every_hook_with_a_part_in_a_stage_is_called(train, without_validation):
    called = []

    class Base(Hook):
        def before_train_epoch(self, runner):
            called.append('inherited')

    class Generic(Base):  # mmengine calls it in training, validation and test
        def _after_iter(self, runner, batch_idx, mode='train', **ignored):
            called.append(mode)

        def at_noon(self, runner, hour):  # a stage of one's own
            called.append(hour)

    class Late(Hook):
        def after_train_iter(self, runner, batch_idx, **ignored):
            called.append('late')

    class Registrar(Hook):
        def after_train_iter(self, runner, batch_idx, **ignored):
            if runner.iter == 0:
                runner.register_hook(Late(), 'LOWEST')

    def prepare(runner):
        for hook in (Generic(), Registrar()):
            runner.register_hook(hook)

    runner = train(before=prepare, **{'train_cfg.max_epochs': 1, **without_validation})
    assert runner.iter >= 2
    assert called == ['inherited', 'train', *['train', 'late'] * (runner.iter - 1)]
    runner.call_hook('at_noon', hour=12)
    assert called[-1] == 12


def test_a_hook_acts_in_stages_of_its_own():
    class Own(Hook):
        def after_train_iter(self, runner, batch_idx, **ignored): ...

    hook = Own()
    hook.before_run = print  # of this one alone
    assert [stage for stage in Hook.stages if acts(hook, stage)] == [
        'before_run',
        'after_train_iter',
    ]


@pytest.mark.parametrize('several', [True, False])
def test_one_schedule_for_all_roles_is_checked_like_that_of_a_role(train, several):
    behind = dict(type='MultiStepLR', milestones=[60], begin=50)
    with pytest.raises(UsageError, match=r'param_scheduler\.student'):
        train(param_scheduler=[behind] if several else behind)


def test_a_schedule_for_all_roles(train):
    half = dict(type='MultiStepLR', milestones=[1], gamma=0.5)
    rates = train(param_scheduler=[half]).message_hub.get_scalar('train/student.lr').data[0]
    assert rates[-1] == pytest.approx(0.5 * rates[0])


def test_one_schedule_for_several_roles(train, generative):
    generative.pop('param_scheduler.generator')
    half = dict(type='MultiStepLR', milestones=[1], gamma=0.5)
    runner = train(**generative, param_scheduler=[half])
    rates = {role: wrapper.get_lr()['lr'] for role, wrapper in runner.optim_wrapper.items()}
    assert rates == dict(student=[0.025], generator=[5e-4])


def test_any_default_hook_can_be_left_out(train):
    runner = train(**{'default_hooks.samples': None, 'default_hooks.timer': None})
    names = {type(hook).__name__ for hook in runner.hooks}
    assert not names & {'SampleHook', 'IntervalTimerHook', 'IterTimerHook'}
    assert 'SelectionHook' in names


def test_losses_are_read_as_often_as_is_logged(train):
    """Else a line would repeat those of the line before, or have none."""
    runner = train(**{'default_hooks.logger.interval': 1})
    steps = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(steps) == runner.iter > 2
    assert len(runner.message_hub.get_scalar('train/time').data[0]) == runner.iter


def test_a_new_run_forgets_the_checkpoint_of_an_earlier_one(train, tmp_path):
    train()
    assert (tmp_path / 'run' / 'last_checkpoint').exists()
    found = []

    def look(runner):
        before = runner.call_hook

        def call_hook(name, **kwargs):
            before(name, **kwargs)
            if name == 'before_train':
                found.append((tmp_path / 'run' / 'last_checkpoint').exists())

        runner.call_hook = call_hook

    train(before=look)
    train(before=look, resume=True, **{'train_cfg.max_epochs': 3})
    assert found == [False, True]


def test_a_step_that_would_never_be_taken(train):
    with pytest.raises(UsageError, match=r'optim_wrapper\.student\.accumulative_counts is 1000'):
        train(**{'optim_wrapper.student.accumulative_counts': 1000})
