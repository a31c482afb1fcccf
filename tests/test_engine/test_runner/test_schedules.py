# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest

from mmdfkd.engine.runner.schedules import check_length, check_schedules
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
    with pytest.raises(UsageError, match=message):
        check_schedules(dict(student=[], critic=[dict(type='LinearLR'), late]), **RUN)


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
