# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import warnings

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from mmdfkd.engine.runner.schedules import (
    Schedules,
    check_epochs,
    check_length,
    check_schedules,
    differ,
)
from mmdfkd.registry import PARAM_SCHEDULERS
from mmdfkd.utils import UsageError

RUN = dict(epochs=2, iterations=12, selects=False, in_epochs=True)


@pytest.mark.parametrize(
    ('settings', 'last', 'unit'),
    [({}, 1, 'epochs'), (dict(by_epoch=True), 1, 'epochs'), (dict(by_epoch=False), 11, 'steps')],
)
def test_a_schedule_begins_in_its_own_unit(settings, last, unit):
    check_schedules(dict(student=dict(type='LinearLR', begin=last, **settings)), **RUN)
    late = dict(type='LinearLR', begin=last + 1, **settings)
    message = rf'critic: LinearLR begins after {last + 1} {unit}, and the run has {last + 1}'
    for several in ([dict(type='LinearLR'), late], (late,), late):
        with pytest.raises(UsageError, match=message):
            check_schedules(dict(student=[], critic=several), **RUN)


def test_what_is_built_already_is_not_judged():
    check_schedules(dict(student=[object()], critic=object()), **RUN)


def test_a_run_of_twelve_iterations():
    check_length(12, 11, dict(student=dict(accumulative_counts=12), critic=object()))
    with pytest.raises(UsageError, match='warmup_iterations is 12, and the run has 12'):
        check_length(12, 12, {})
    with pytest.raises(UsageError, match=r'critic\.accumulative_counts is 13'):
        check_length(12, 0, dict(student={}, critic=dict(accumulative_counts=13)))


def test_a_schedule_of_epochs_in_a_run_without():
    """Converted, it ends by default after one epoch: as many as mmengine says such a run has."""
    run = dict(RUN, epochs=1, in_epochs=False)
    converted = dict(type='LinearLR', convert_to_iter_based=True)
    for fine in (
        dict(type='LinearLR', by_epoch=False),
        dict(converted, begin=1, end=2),
        dict(type='ReduceOnPlateauLR'),
    ):
        check_schedules(dict(student=fine), **run)
    for never in (dict(type='LinearLR'), dict(type='LinearLR', begin=1), converted):
        message = r'student: LinearLR counts epochs, and train_cfg has none\. Set its by_epoch=F'
        with pytest.raises(UsageError, match=message):
            check_schedules(dict(student=never), **run)


def test_a_late_schedule_in_a_run_without_epochs():
    late = dict(type='LinearLR', by_epoch=False, begin=12)
    with pytest.raises(UsageError, match=r'begins after 12 steps.* raise train_cfg\.max_iters'):
        check_schedules(dict(student=late), **dict(RUN, in_epochs=False))


def test_a_selection_without_epochs():
    check_epochs(EpochBasedTrainLoop.__new__(EpochBasedTrainLoop), 'The selector selects')
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    with pytest.raises(UsageError, match='The selector selects, and train_cfg has none. Set'):
        check_epochs(loop, 'The selector selects')


# Resuming: what a run would have done is done by mmengine's schedulers themselves ----------------


def begin(*configs, lr=1.0):
    """An optimiser of one weight, and its schedules."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.8)
    built = [PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer)) for config in configs]
    return optimizer, built


def train(optimizer, schedulers, epochs):
    """Epochs of so many iterations; those that count epochs step at the end of each."""
    for iterations in epochs:
        for by_epoch, steps in ((False, iterations), (True, 1)):
            optimizer.step()
            for _ in range(steps):
                for scheduler in schedulers:
                    if scheduler.by_epoch == by_epoch:
                        scheduler.step()


def resume(before, now, epochs, lr):
    """Load what a run has left into one of another config, as mmengine does."""
    old, others = begin(*before)
    train(old, others, epochs)
    known = copy.deepcopy([scheduler.state_dict() for scheduler in others])
    for state in known:  # which is no plain data
        state.pop('anneal_func', None)
    new, own = begin(*now, lr=lr)
    schedules = Schedules(dict(student=own), dict(student=new))
    new.load_state_dict(old.state_dict())
    for scheduler, state in zip(own, known):  # noqa: B905 - there may be more of one
        scheduler.load_state_dict(copy.deepcopy(state))
    return schedules, known, (new, own)


COSINE = dict(type='CosineAnnealingLR', T_max=12, eta_min=0.01, by_epoch=False)
HALVES = dict(type='ExponentialLR', gamma=0.5)
CYCLE = dict(type='OneCycleLR', total_steps=12, by_epoch=False)


@pytest.mark.parametrize(
    ('before', 'now', 'epochs'),
    [
        ([HALVES], [COSINE, HALVES], [3, 3]),  # they do not commute
        ([COSINE, HALVES], [COSINE], [3, 3]),
        ([COSINE], [dict(type='MultiStepLR', milestones=[5], by_epoch=False)], [2, 3]),
        ([dict(CYCLE, eta_max=0.2)], [dict(CYCLE, eta_max=0.1)], [3, 3]),
        (
            [dict(type='MultiStepMomentum', milestones=[1])],
            [dict(type='MultiStepMomentum', milestones=[2])],
            [3],
        ),
    ],
)
def test_a_resumed_run_is_where_a_run_of_its_config_would_be(before, now, epochs):
    schedules, known, resumed = resume(before, now, epochs, lr=0.5)
    assert schedules.changed('student', known)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        schedules.replay('student', len(epochs), sum(epochs))
    whole = begin(*now, lr=0.5)
    train(*whole, epochs)
    for _ in range(2):
        (found,), (expected,) = (run[0].param_groups for run in (resumed, whole))
        for key in ('lr', 'momentum'):
            assert found[key] == expected[key], key
        for run in (resumed, whole):
            train(*run, [3])


def test_a_run_without_epochs_is_resumed():
    schedules, _, (optimizer, _) = resume([HALVES], [COSINE], [3], lr=0.5)
    schedules.replay('student', 0, 6)
    # half of its way from 0.5 to 0.01
    assert optimizer.param_groups[0]['lr'] == pytest.approx((0.5 + 0.01) / 2)


@pytest.mark.parametrize('config', [[COSINE, HALVES], [dict(CYCLE, eta_max=0.2)], []])
def test_a_run_that_goes_on_as_it_began(config):
    schedules, known, _ = resume(config, config, [3, 3], lr=1.0)
    assert not schedules.changed('student', known)
    assert schedules.changed('student', [*known, HALVES])
    assert resume([], [], [3], lr=0.5)[0].changed('student', [])


def test_states_with_tensors():
    own = dict(last_step=3, factors=torch.tensor([1.0, 2.0]), gamma=0.5)
    assert not differ(own, dict(last_step=4, factors=torch.tensor([1.0, 2.0]), gamma=0.5))
    assert differ(own, dict(own, factors=torch.tensor([1.0, 3.0])))
    assert differ(own, dict(own, gamma=torch.tensor(0.4)))
