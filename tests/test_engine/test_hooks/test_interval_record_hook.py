# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import time
import uuid
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdfkd.engine import RoleOptimWrapper
from mmdfkd.engine.hooks import IntervalRuntimeInfoHook, IntervalTimerHook
from mmdfkd.utils import UsageError


class Optimizers(dict):
    def get_lr(self):
        return {'student.lr': [0.1], 'critic.lr': [0.2]}


@pytest.fixture
def runner():
    """A runner of epochs of 7 steps, as far as these hooks look at it."""
    return SimpleNamespace(
        message_hub=MessageHub.get_instance(str(uuid.uuid4())),
        train_dataloader=range(7),
        train_loop=EpochBasedTrainLoop.__new__(EpochBasedTrainLoop),
        optim_wrapper=Optimizers(),
        model=torch.nn.Linear(1, 1),
        iter=0,
        epoch=0,
        max_epochs=4,
    )


def run_epoch(hook, runner, losses):
    for index, loss in enumerate(losses):
        outputs = dict(loss=torch.tensor(loss), weight=torch.tensor(0.5 * loss))
        hook.before_train_iter(runner, index)
        hook.after_train_iter(runner, index, outputs=outputs)
        runner.iter += 1
    hook.after_train_epoch(runner)
    runner.epoch += 1


def recorded(runner, name):
    return runner.message_hub.get_scalar(f'train/{name}').data[0].tolist()


def test_records_are_means_over_whole_intervals_and_the_short_last_one(runner):
    hook = IntervalRuntimeInfoHook(interval=3)
    run_epoch(hook, runner, [1.0, 2.0, 6.0, 4.0, 5.0, 9.0, 7.0])
    assert recorded(runner, 'loss') == [3.0, 6.0, 7.0]
    assert recorded(runner, 'weight') == [1.5, 3.0, 3.5]
    # the next epoch starts an interval of its own
    run_epoch(hook, runner, [10.0] * 3 + [20.0] * 3 + [0.0])
    assert recorded(runner, 'loss')[3:] == [10.0, 20.0, 0.0]
    assert recorded(runner, 'student.lr') == [0.1] * 6
    assert recorded(runner, 'critic.lr') == [0.2] * 6
    assert runner.message_hub.get_info('iter') == 13  # the second epoch's last


def test_scalars_are_read_once_per_interval(runner, monkeypatch):
    reads = []
    for name in ('item', 'tolist', '__float__', 'cpu', 'numpy'):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original, name=name):
            reads.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    hook = IntervalRuntimeInfoHook(interval=3)
    for index in range(7):
        hook.after_train_iter(runner, index, outputs=dict(a=torch.ones(()), b=torch.ones(())))
        assert len(reads) == {2: 1, 3: 1, 4: 1, 5: 2, 6: 3}.get(index, 0)
    assert set(reads) == {'tolist'}


def test_norms_of_clipped_gradients_are_means_too(runner):
    weight = torch.nn.Parameter(torch.zeros(2))
    wrapper = RoleOptimWrapper(torch.optim.SGD([weight], lr=1.0), clip_grad=dict(max_norm=1.0))
    runner.optim_wrapper['student'] = wrapper
    hook = IntervalRuntimeInfoHook(interval=2)
    for index, scale in enumerate((1.0, 3.0, 5.0, 5.0)):
        wrapper.update_params(scale * weight @ torch.tensor([3.0, 4.0]))
        hook.after_train_iter(runner, index, outputs=dict(loss=torch.ones(())))
    assert recorded(runner, 'student_grad_norm') == [10.0, 25.0]


def test_roles_with_a_wrapper_of_mmengine_have_no_norm(runner):
    weight = torch.nn.Parameter(torch.zeros(2))
    runner.optim_wrapper['student'] = OptimWrapper(torch.optim.SGD([weight], lr=1.0))
    run_epoch(IntervalRuntimeInfoHook(interval=7), runner, [1.0] * 7)
    assert recorded(runner, 'loss') == [1.0]
    assert 'train/student_grad_norm' not in runner.message_hub.log_scalars


def test_steps_that_return_nothing_have_learning_rates(runner):
    hook = IntervalRuntimeInfoHook(interval=2)
    for index, outputs in enumerate((None, {})):
        hook.after_train_iter(runner, index, outputs=outputs)
    assert runner.message_hub.log_scalars.keys() == {'train/student.lr', 'train/critic.lr'}


def test_steps_need_not_return_the_same(runner):
    hook = IntervalRuntimeInfoHook(interval=4)
    for index in range(4):
        outputs = dict(a=torch.tensor(float(index)))
        if index >= 2:  # a warm-up has ended
            outputs = dict(b=torch.tensor(10.0 * index), **outputs)
        hook.after_train_iter(runner, index, outputs=outputs)
    assert recorded(runner, 'a') == [1.5] and recorded(runner, 'b') == [25.0]


def test_half_precision_is_averaged_in_single(runner):
    hook = IntervalRuntimeInfoHook(interval=7)
    for index in range(7):
        value = torch.tensor(40000.0, dtype=torch.float16)  # twice that is infinite
        hook.after_train_iter(runner, index, outputs=dict(a=value, b=torch.tensor(1.0)))
    assert recorded(runner, 'a') == [40000.0] and recorded(runner, 'b') == [1.0]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_stops_the_run(runner, value):
    hook = IntervalRuntimeInfoHook(interval=3)
    with pytest.raises(UsageError) as error:
        run_epoch(hook, runner, [1.0, value, 1.0])
    text = str(error.value)
    assert text.startswith('loss, weight became NaN or infinite in epoch 1, iteration 3')
    assert 'No checkpoint was written yet' in text
    runner.message_hub.update_info('last_ckpt', 'work_dirs/x/epoch_7.pth')
    with pytest.raises(UsageError, match='last good checkpoint is work_dirs/x/epoch_7.pth'):
        run_epoch(hook, runner, [value] * 3)


def test_weights_that_are_not_finite_stop_the_run_at_the_end_of_the_epoch(runner):
    hook = IntervalRuntimeInfoHook(interval=3)
    run_epoch(hook, runner, [1.0] * 7)
    runner.model.weight.data.fill_(float('inf'))
    with pytest.raises(UsageError, match='weights became NaN or infinite'):
        run_epoch(hook, runner, [1.0] * 7)


def test_weights_are_checked_at_each_reading_where_the_loop_counts_iterations(runner):
    runner.train_loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    runner.max_iters = 8
    hook = IntervalRuntimeInfoHook(interval=3)
    runner.model.weight.data.fill_(float('nan'))
    with pytest.raises(UsageError, match='weights became NaN.*iteration 3'):
        run_epoch(hook, runner, [1.0] * 7)


def test_the_last_iterations_are_read_where_the_loop_counts_them(runner):
    runner.train_loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    runner.train_dataloader, runner.max_iters = range(1000), 5
    run_epoch(IntervalRuntimeInfoHook(interval=3), runner, [1.0, 2.0, 6.0, 4.0, 5.0])
    assert recorded(runner, 'loss') == [3.0, 4.5]
    runner.iter = 0
    with pytest.raises(UsageError, match='loss, weight became NaN.*iteration 5'):
        run_epoch(IntervalRuntimeInfoHook(interval=3), runner, [1.0] * 4 + [float('nan')])


@pytest.mark.parametrize('kind', [IntervalRuntimeInfoHook, IntervalTimerHook])
def test_read_as_often_as_is_logged(runner, kind, monkeypatch):
    monkeypatch.setattr(kind.__base__, 'before_train', lambda self, runner: None)
    for own, hooks, expected in (
        (None, [LoggerHook(interval=20)], 20),
        (None, [], 50),
        (7, [LoggerHook(interval=20)], 7),
    ):
        hook, runner.hooks = kind(interval=own), hooks
        hook.before_train(runner)
        assert hook.interval == expected


def test_what_mmengine_says_of_a_run_is_said(finished):
    said = {key: finished.message_hub.get_info(key) for key in ('max_epochs', 'max_iters')}
    assert said == dict(max_epochs=2, max_iters=finished.max_iters)


# Times ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(time, 'perf_counter', lambda: now.time)
    return now


def test_times_are_means_per_step(runner, clock):
    hook = IntervalTimerHook(interval=3)
    hook.before_train(runner)
    for _ in range(2):
        clock.time += 1000  # selection: not part of a step
        hook.before_train_epoch(runner)
        for index in range(7):
            clock.time += 0.25
            hook.before_train_iter(runner, index)
            clock.time += 0.75 if index < 6 else 2.75
            hook.after_train_iter(runner, index)
    assert recorded(runner, 'data_time') == pytest.approx([0.25, 0.25, 0.25] * 2)
    assert recorded(runner, 'time') == pytest.approx([1.0, 1.0, 3.0] * 2)


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_times_of_a_validation_are_its_own(runner, clock, mode):
    setattr(runner, f'{mode}_dataloader', range(5))
    hook = IntervalTimerHook(interval=3)  # tools/test.py trains nothing before
    for step in (1.0, 4.0):
        getattr(hook, f'before_{mode}_epoch')(runner)
        for index in range(5):
            clock.time += 0.25
            getattr(hook, f'before_{mode}_iter')(runner, index)
            clock.time += step
            getattr(hook, f'after_{mode}_iter')(runner, index)
            if index == 2:
                assert runner.message_hub.get_info('eta') == pytest.approx(2 * (step + 0.25))
        getattr(hook, f'after_{mode}_epoch')(runner)
        for name, expected in (('time', step + 0.25), ('data_time', 0.25)):
            history = runner.message_hub.get_scalar(f'{mode}/{name}')
            assert history.data[0].tolist() == pytest.approx([expected] * 2)  # none of before


def test_a_validation_between_iterations_takes_no_time_of_theirs(runner, clock):
    runner.train_dataloader, runner.val_dataloader = range(1000), range(2)
    hook = IntervalTimerHook(interval=4)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for index in range(4):
        clock.time += 1
        hook.before_train_iter(runner, index)
        clock.time += 2
        hook.after_train_iter(runner, index)
        if index == 1:  # iterations are counted anew after it
            hook.before_val_epoch(runner)
            clock.time += 500
            hook.after_val_epoch(runner)
    assert recorded(runner, 'time') == pytest.approx([3.0])
    assert recorded(runner, 'data_time') == pytest.approx([1.0])


def test_time_left_counts_epochs(runner, clock):
    hook = IntervalTimerHook(interval=100)
    hook.before_train(runner)
    for expected in (300.0, 200.0, 100.0, 0.0):  # 4 epochs of 100 seconds
        hook.before_train_epoch(runner)
        clock.time += 100
        hook.after_train_iter(runner, 6)
        assert runner.message_hub.get_info('eta') == pytest.approx(expected)
        runner.epoch += 1


def test_a_bank_is_empty_when_the_clock_starts(runner, clock):
    runner.train_dataloader = range(0)
    hook = IntervalTimerHook(interval=100)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    runner.train_dataloader = range(7)
    clock.time += 100
    hook.after_train_iter(runner, 6)
    assert runner.message_hub.get_info('eta') == pytest.approx(300.0)


def test_time_left_of_a_resumed_run(runner, clock):
    runner.epoch = 2  # half of it is done, in another process
    hook = IntervalTimerHook(interval=100)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    clock.time += 100
    hook.after_train_iter(runner, 6)
    assert runner.message_hub.get_info('eta') == pytest.approx(100.0)


def test_time_left_counts_iterations_where_the_loop_does(runner, clock):
    runner.train_loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    runner.train_dataloader = range(1000)
    runner.max_iters = 10
    hook = IntervalTimerHook(interval=5)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for runner.iter in range(5):
        clock.time += 1
        hook.after_train_iter(runner, runner.iter)
    assert runner.message_hub.get_info('eta') == pytest.approx(5.0)


@pytest.mark.parametrize(
    'returned', [torch.tensor(1.0), dict(loss=1.0), dict(loss=torch.ones(2)), [1]]
)
def test_what_a_step_may_not_return(runner, returned):
    with pytest.raises(UsageError, match='train_step of the method returned .*Return a dict of'):
        IntervalRuntimeInfoHook(interval=3).after_train_iter(runner, 0, outputs=returned)
