# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Runs in two stages: what each leaves, that either can be resumed, and that both fit together."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmdfkd.datasets import HybridDataset, HybridSampler, ImageBank, ImagePool, NoisePool
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.hooks import GANHook
from mmdfkd.models.algorithms import HiDFD
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config

FOUR = {'model.gan_epochs': 2, 'train_cfg.max_epochs': 4}


class Interrupt(Hook):
    """Kill a run when an epoch is over and saved."""

    priority = 'LOWEST'

    def __init__(self, epoch):
        self.epoch = epoch

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def warnings(monkeypatch):
    """What a run's logger warns of."""
    found = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *_: found.append(str(text)))
    return found


def tensors(runner):
    state = runner.model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def test_both_stages_in_one_run(train, hybrid):
    runner = train(**hybrid)
    folder = Path(runner.work_dir)
    bank = ImagePool(folder / 'bank')
    assert len(bank) == 15 and np.bincount(bank.extra('labels')).tolist() == [3] * 5
    assert (folder / 'student.pth').exists()
    chosen = runner.train_dataloader.batch_sampler.sampler.collected
    assert len(chosen) == 20
    assert runner.iter == 2 + 4  # 20 images in tens; 2 x 20 + 15 in sixteens
    assert runner.model.iteration == 2
    record = np.load(folder / 'gan.npz')
    assert record['scores'].shape == (1, 3) and np.isfinite(record['scores']).all()
    assert record['pool'].sum() == 96 and record['collected'].sum() == 20
    assert record['earliest'].sum() == 2 * 10  # what two steps of G made


def test_the_log_of_the_student_has_no_losses_of_the_gan(train, hybrid):
    lines = (Path(train(**hybrid).work_dir)).glob('*/vis_data/scalars.json')
    epochs = [json.loads(line) for line in next(lines).read_text().splitlines()]
    losses = [
        {name for name in epoch if name.startswith(('loss', 'generated_c'))}
        for epoch in epochs
        if 'iter' in epoch
    ]
    assert 'loss_d_real' in losses[0] and losses[-1] == {'loss_student'}


def test_what_is_kept_for_the_picture_by_hand(tmp_path):
    scores = [
        [1, dict(score_collected=3.0, score_generated=-1.0, score_held_out=0.5)],
        [2, dict(score_collected=4.0, score_generated=-2.0)],  # nothing was left to hold out
    ]
    sampler = SimpleNamespace(collected=torch.tensor([1, 3]))
    model = SimpleNamespace(
        teacher=SimpleNamespace(num_classes=3),
        student=SimpleNamespace(num_classes=3),
        smoothing=SimpleNamespace(earliest=torch.tensor([4]), latest=torch.tensor([5])),
        pseudo_labels=torch.tensor([0, 1, 1, 2]),
    )
    runner = SimpleNamespace(
        rank=0,
        work_dir=str(tmp_path),
        val_loop=None,
        model=model,
        message_hub=SimpleNamespace(runtime_info=dict(gan_scores=scores)),
        train_dataloader=SimpleNamespace(batch_sampler=SimpleNamespace(sampler=sampler)),
    )
    hook = GANHook()
    hook.staged = True
    hook.after_train(runner)
    with np.load(tmp_path / 'gan.npz') as record:
        assert record['epochs'].tolist() == [1, 2]
        np.testing.assert_array_equal(record['scores'], [[3, 0.5, -1], [4, np.nan, -2]])
        assert record['pool'].tolist() == [1, 2, 1] and record['collected'].tolist() == [0, 1, 1]
        assert (record['earliest'].tolist(), record['latest'].tolist()) == ([4], [5])
        assert record['classes'].tolist() == ['0', '1', '2']


@pytest.mark.parametrize('epoch', [1, 2, 3])
def test_either_stage_resumes(train, toy_config, hybrid, epoch):
    """Killed within the GAN, between the stages, or within the student: bit for bit the same."""
    whole = train('whole', **hybrid, **FOUR)
    with pytest.raises(KeyboardInterrupt):
        train('parts', lambda runner: runner.register_hook(Interrupt(epoch)), **hybrid, **FOUR)
    resumed = DistillRunner.from_cfg(toy_config('parts', **hybrid, **FOUR, resume=True))
    resumed.train()
    expected, found = tensors(whole), tensors(resumed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    images = [(Path(run.work_dir) / 'bank/images.npy').read_bytes() for run in (whole, resumed)]
    assert images[0] == images[1]
    records = [np.load(Path(run.work_dir) / 'gan.npz') for run in (whole, resumed)]
    np.testing.assert_array_equal(records[0]['scores'], records[1]['scores'])


@pytest.fixture
def made(train, hybrid, without_validation):
    """The finished run of a GAN alone."""
    return train('gan', **hybrid, **without_validation, **{'train_cfg.max_epochs': 1})


def second_stage(hybrid, root, **changes):
    images = dict(hybrid['train_dataloader.dataset'])
    images['synthetic'] = dict(type='ImagePool', root=str(root))
    options = {'model.gan_epochs': 0, 'train_dataloader.dataset': images}
    return {**hybrid, **options, 'train_cfg.max_epochs': 1, **changes}


def test_one_stage_after_the_other(train, hybrid, made):
    """The images and the student are those of the run of both."""
    folder = Path(made.work_dir)
    assert not (folder / 'student.pth').exists() and (folder / 'summary.json').exists()
    both = train('both', **hybrid)
    images = [(Path(run.work_dir) / 'bank/images.npy').read_bytes() for run in (made, both)]
    assert images[0] == images[1]
    runner = train('student', **second_stage(hybrid, folder / 'bank'))
    assert runner.iter == 4 and (Path(runner.work_dir) / 'student.pth').exists()
    own = runner.train_dataloader.batch_sampler.sampler.collected
    assert torch.equal(own, made.train_dataloader.batch_sampler.sampler.collected)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'model.selector.num_select': 30}, 'made with selector'),
        ({'train_dataloader.dataset.collected.num_images': 95}, 'made with collected'),
    ],
)
def test_images_of_another_collection(train, hybrid, made, changes, words):
    with pytest.raises(UsageError, match=words):
        train('student', **second_stage(hybrid, Path(made.work_dir, 'bank'), **changes))


def test_images_of_another_teacher(train, hybrid, made, monkeypatch):
    monkeypatch.setattr(HiDFD, 'teacher_fingerprint', lambda self: 'another')
    with pytest.raises(UsageError, match='made with teacher'):
        train('student', **second_stage(hybrid, Path(made.work_dir, 'bank')))


def test_the_gan_of_a_checkpoint_makes_the_images(train, hybrid, made):
    options = {'model.gan_epochs': 0, 'train_cfg.max_epochs': 1}
    runner = train('student', **{**hybrid, **options}, load_from=f'{made.work_dir}/epoch_1.pth')
    images = [(Path(run.work_dir) / 'bank/images.npy').read_bytes() for run in (made, runner)]
    assert images[0] == images[1] and runner.iter == 4
    again = train('student', **{**hybrid, **options, 'train_cfg.max_epochs': 2}, resume=True)
    assert again.iter == 8


def test_resuming_a_run_that_is_over(train, hybrid):
    """Its record of the GAN is written again, with all that the selection says."""
    folder = Path(train('whole', **hybrid).work_dir)
    with np.load(folder / 'gan.npz') as record:
        expected = dict(record)
    (folder / 'gan.npz').unlink()
    train('whole', **hybrid, resume=True)
    with np.load(folder / 'gan.npz') as found:
        assert found.files == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


class InterruptRound(Hook):
    """Kill a run between two rounds of making images, when the GAN is trained and saved."""

    priority = 'LOWEST'

    def before_train(self, runner):
        make = runner.model.synthesize

        def killed(optim_wrapper, round_number, *args, **kwargs):
            if round_number == 1:
                raise KeyboardInterrupt
            return make(optim_wrapper, round_number, *args, **kwargs)

        runner.model.synthesize = killed


def test_a_gan_killed_while_it_makes_its_images(train, hybrid, without_validation, monkeypatch):
    """Resuming makes them: no epoch is left, so nothing else tells what was selected."""
    monkeypatch.setattr(HiDFD, 'batch_size', 5)
    alone = {**hybrid, **without_validation, 'train_cfg.max_epochs': 1}
    whole = train('whole', **alone)
    with pytest.raises(KeyboardInterrupt):
        train('parts', lambda runner: runner.register_hook(InterruptRound()), **alone)
    resumed = train('parts', **alone, resume=True)
    images = [(Path(run.work_dir) / 'bank/images.npy').read_bytes() for run in (whole, resumed)]
    assert images[0] == images[1] and len(ImagePool(Path(resumed.work_dir, 'bank'))) == 15


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'model.gan_epochs': 3}, 'model.gan_epochs is 3, train_cfg.max_epochs 2'),
        ({'train_dataloader.dataset.synthetic': None}, 'its images have no place to go'),
        ({'model.gan_epochs': 0}, 'nobody fills train_dataloader.dataset.synthetic'),
        (
            {
                'train_dataloader.dataset': dict(
                    _delete_=True, type='NoisePool', num_images=96, image_size=16
                ),
                'train_dataloader.sampler': dict(_delete_=True, type='SelectionSampler'),
                'train_dataloader.batch_sampler': dict(type='EvenBatchSampler'),
            },
            "dataset=dict\\(type='HybridDataset'",
        ),
    ],
)
def test_stages_that_do_not_fit(train, hybrid, changes, words):
    with pytest.raises(UsageError, match=words):
        train(**{**hybrid, **changes})


def test_gan_for_other_classes(toy_config, train, hybrid, made, monkeypatch):
    """Its checkpoint says how many they were."""
    path = Path(made.work_dir, 'epoch_1.pth')
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint['state_dict']
    for name in [name for name in state if name.endswith(('gain.weight', 'norm1.bias.weight'))]:
        state[name] = torch.zeros(7, state[name].shape[1])
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match='GAN for 7 classes .* the teacher has 5'):
        train('again', load_from=str(path), **hybrid)


def test_images_of_another_method_are_welcome():
    made = SimpleNamespace(meta=dict(bank=dict(method='DeepInversion', settings={})))
    runner = SimpleNamespace(model=SimpleNamespace(method='HiDFD'))
    GANHook._check_bank(runner, SimpleNamespace(bank=None, synthetic=made))


# A run of the GAN alone has no student whose schedule could be wrong.
@pytest.mark.parametrize(('begin', 'epochs', 'warns'), [(1, 2, False), (0, 2, True), (0, 1, False)])
def test_a_schedule_that_begins_with_the_gan(train, hybrid, warnings, begin, epochs, warns):
    schedule = [dict(type='MultiStepLR', begin=begin, milestones=[1])]
    changes = {'param_scheduler.student': schedule, 'train_cfg.max_epochs': epochs}
    train(**{**hybrid, **changes})
    found = [text for text in warnings if 'schedule of the student begins after 0 epochs' in text]
    assert len(found) == warns


@pytest.mark.parametrize(
    ('schedules', 'warns'),
    [
        ([(True, 0), (True, 2)], True),  # by epochs or not, and where it begins
        ([(True, 2), (True, 3)], False),
        ([(False, 0)], False),
        ([(False, 0), (True, 1)], True),
    ],
)
def test_which_schedules_begin_with_the_student(schedules, warns):
    pool = NoisePool(8, image_size=16)
    dataset = HybridDataset(pool, ImageBank())
    runner = Mock(max_epochs=4, train_loop=Mock(spec=EpochBasedTrainLoop))
    runner.model.gan_epochs, runner.train_dataloader.dataset = 2, dataset
    runner.train_dataloader.batch_sampler.sampler = HybridSampler(dataset, seed=0)
    runner.param_schedulers = dict(
        student=[SimpleNamespace(by_epoch=by_epoch, begin=begin) for by_epoch, begin in schedules]
    )
    GANHook().before_train(runner)
    assert runner.logger.warning.called == warns


def test_what_epochs_train_is_said_when_it_changes():
    runner = Mock(max_epochs=5)
    runner.model.gan_epochs, runner.message_hub.log_scalars, said = 2, {}, []
    runner.logger.info = said.append
    hook, stages = GANHook(), []
    hook.staged = True
    for epoch in range(5):
        runner.epoch = epoch
        hook.before_train_epoch(runner)
        stages.append(runner.train_dataloader.batch_sampler.sampler.stage)
    assert stages == ['gan', 'gan', 'student', 'student', 'student']
    assert [call.args[0] for call in runner.model.set_stage.call_args_list] == stages
    assert said == ['Epochs 1 to 2 train the GAN.', 'Epochs 3 to 5 train the student.']


@pytest.mark.parametrize(('size', 'warns'), [(4, True), (5, False)])
def test_a_batch_of_the_gan_smaller_than_the_classes(train, hybrid, warnings, size, warns):
    train(**hybrid, **{'train_dataloader.batch_sampler.gan_batch_size': size})
    found = [text for text in warnings if 'cannot hold all 5 classes' in text]
    assert len(found) == warns
    assert all('train_dataloader.batch_sampler.gan_batch_size to 25' in text for text in found)


def test_as_many_images_are_scored_as_asked_for(train, hybrid, monkeypatch):
    scored, generated = [], []

    def score(self, data):
        scored.append(data['index'].tolist())
        return torch.tensor(0.0)

    def score_generated(self, count):
        generated.append(count)
        return torch.tensor(0.0)

    monkeypatch.setattr(HiDFD, 'score', score)
    monkeypatch.setattr(HiDFD, 'score_generated', score_generated)
    runner = train(**hybrid, **{'default_hooks.gan.count': 3})
    collected = runner.train_dataloader.batch_sampler.sampler.collected
    assert scored == [collected[:3].tolist(), runner.model.held_out[:3].tolist()]
    assert generated == [3]


def test_discriminator_that_knows_its_images_by_heart(train, hybrid, warnings, monkeypatch):
    """High scores for what it learned from, low ones for others of the same pool."""
    scores = iter([torch.tensor(1.5), torch.tensor(-0.5)])
    monkeypatch.setattr(HiDFD, 'score', lambda self, data: next(scores))
    train(**hybrid)
    assert any('by heart' in text and '1.50' in text and '-0.50' in text for text in warnings)


@pytest.fixture
def after_an_epoch():
    """A runner after the second epoch of a GAN, of which the hook has been told."""

    def end(collected=1.5, held_out=-0.5, others=2, rank=0):
        runner = Mock(rank=rank, epoch=1)
        runner.train_dataloader.dataset = SimpleNamespace(__getitems__=lambda indices: indices)
        runner.train_dataloader.batch_sampler.sampler.collected = torch.arange(4)
        runner.message_hub.runtime_info = dict(gan_scores=['the first epoch'])
        model = runner.model
        model.stage, model.held_out = 'gan', torch.arange(4, 4 + others)
        model.score.side_effect = [torch.tensor(collected), torch.tensor(held_out)]
        model.score_generated.return_value = torch.tensor(-2.0)
        hook = GANHook()
        hook.staged = True
        hook.after_train_epoch(runner)
        return runner

    return end


@pytest.mark.parametrize(
    ('collected', 'held_out', 'warns'), [(1.5, -0.5, True), (1.0, -0.5, False), (1.5, 0.0, False)]
)
def test_scores_add_up_and_are_judged(after_an_epoch, collected, held_out, warns):
    runner = after_an_epoch(collected, held_out)
    scores = dict(score_collected=collected, score_generated=-2.0, score_held_out=held_out)
    rows = ['the first epoch', [2, scores]]
    runner.message_hub.update_info.assert_called_once_with('gan_scores', rows)
    runner.visualizer.add_scalars.assert_called_once_with({**scores, 'epoch': 2}, step=2)
    assert runner.logger.warning.called == warns


def test_where_all_images_are_collected_there_are_none_to_compare_with(after_an_epoch):
    runner = after_an_epoch(others=0)
    scores = dict(score_collected=1.5, score_generated=-2.0)
    runner.visualizer.add_scalars.assert_called_once_with({**scores, 'epoch': 2}, step=2)
    assert not runner.logger.warning.called


def test_the_first_process_writes_and_all_remember(after_an_epoch, tmp_path):
    runner = after_an_epoch(rank=1)
    assert runner.message_hub.update_info.called
    assert not runner.visualizer.add_scalars.called and not runner.logger.warning.called
    hook = GANHook()
    hook.staged, runner.work_dir = True, str(tmp_path)
    hook.after_train(runner)
    assert not list(tmp_path.iterdir())


def test_configs_are_checked(toy_config, hybrid):
    check_config(toy_config(**hybrid))
    hybrid['model']['smoothing'] = dict(interva=2)
    with pytest.raises(UsageError, match="Did you mean 'interval'"):
        check_config(toy_config('other', **hybrid))
