# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What schedules will do: by hand, and as the log of a run says it."""

import json
from bisect import bisect_right
from pathlib import Path

import pytest

from mmdfkd.apis.planned import plan_schedules
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
KD3 = CONFIGS / 'kd3' / 'kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
ZSKT = CONFIGS / 'zskt' / 'zskt_resnet8_resnet8-half_1xb96-20e_digits.py'
KD = CONFIGS / 'kd' / 'kd_lenet5_lenet5-half_1xb64-60e_digits.py'
ELSEWHERE = CONFIGS / 'kd' / 'kd_resnet34_resnet18_1xb64-240e_cifar10.py'


def plan(config, **changes):
    cfg = load_config(config)
    cfg.merge_from_dict(changes)
    return plan_schedules(cfg)


def steps(begin, *changes, end):
    return [(0, begin), *changes, (end, changes[-1][1] if changes else begin)]


def approx(course):
    return [pytest.approx(pair) for pair in course]


# Schedules of iterations that were epochs, of both at once, and of a run without epochs.
RUNS = {
    'converted': (ZSKT, ''),
    'both': (
        KD,
        """
param_scheduler = dict(student=[
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9),
    dict(type='ExponentialLR', gamma=0.5, by_epoch=True),
])
""",
    ),
    'iterations': (
        KD,
        """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=40, val_interval=20)
param_scheduler = dict(student=[dict(type='StepLR', step_size=1, gamma=0.5, by_epoch=False)])
default_hooks = dict(checkpoint=dict(by_epoch=False))
log_processor = dict(by_epoch=False)
""",
    ),
}


@pytest.mark.parametrize('run', RUNS)
def test_a_run_logs_the_same(run, run_tool, tmp_path):
    base, changes = RUNS[run]
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {str(base)!r}\n{changes}')
    run_tool(
        'train.py',
        *(config, '--quick', '--auto-scale-lr', '--work-dir', tmp_path / 'run'),
        *('--cfg-options', 'default_hooks.logger.interval=1', 'auto_scale_lr.base_batch_size=48'),
    )
    (scalars,) = (tmp_path / 'quick' / 'run').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    records = [record for record in records if 'loss' in record or 'loss_student' in record]

    found = plan_schedules(load_config(tmp_path / 'quick' / 'run' / config.name))
    assert found.unit == ('iteration' if run == 'iterations' else 'epoch')
    assert not found.unknown and not found.varies
    length = 1 if run == 'iterations' else len(records) // 2
    assert len(records) == (4 if run == 'iterations' else 2 * length) > 3
    for role, course in found.courses['lr'].items():
        begins = [round(begin * length) for begin, _ in course[:-1]]
        assert course[-1][0] * length == len(records)
        logged = [record[f'{role}.lr'] for record in records]
        values = [course[bisect_right(begins, step) - 1][1] for step in range(len(records))]
        assert values == pytest.approx(logged, rel=1e-6)
        assert len(set(values)) > 3


def test_steps_of_epochs_by_hand():
    found = plan(
        KD3,
        train_cfg=dict(max_epochs=6),
        param_scheduler=dict(
            student=[
                dict(type='MultiStepLR', milestones=[2, 3], begin=1, gamma=0.1),
                dict(type='ConstantMomentum', factor=0.5, end=4),
            ]
        ),
    )
    assert found.unit == 'epoch' and not found.varies
    assert list(found.courses) == ['lr', 'momentum']
    # Milestones are counted from `begin` on. Adam's momentum is its first beta.
    expected = steps(3e-3, (3, 3e-4), (4, 3e-5), end=6)
    assert found.courses['lr']['student'] == approx(expected)
    expected = steps(0.45, (3, 0.9), end=6)
    assert found.courses['momentum']['student'] == approx(expected)


def test_groups_that_differ_have_names():
    def rates(**changes):
        paramwise = {'optim_wrapper.student.paramwise_cfg': changes, 'param_scheduler': None}
        return plan(KD, **paramwise).courses['lr']

    whole = rates()
    assert whole == rates(norm_decay_mult=0)  # each tensor is a group of its own
    ((name, course),) = whole.items()
    assert name == 'student' and len(course) == 2
    (one, same), (other, slower) = rates(custom_keys=dict(head=dict(lr_mult=0.1))).items()
    assert one.startswith('student: backbone.') and one.endswith(' more')
    assert other.startswith('student: head.') and other.endswith(' more')
    assert same == course
    assert slower == approx([(done, 0.1 * value) for done, value in course])


def test_what_follows_validations_is_said_to_be_unknown():
    plateau = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater')
    found = plan(KD3, param_scheduler=dict(student=[plateau]))
    assert found.unknown == dict(student='ReduceOnPlateauLR')
    assert found.courses['lr']['student'] == [(0, 3e-3), (40, 3e-3)]


def test_images_are_missed_only_where_they_are_counted(tmp_path):
    elsewhere = {'train_dataloader.dataset.data_root': str(tmp_path / 'nowhere')}
    found = plan(ELSEWHERE, **elsewhere)
    assert found.courses['lr']['student'][-1][0] == 240
    by_iteration = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9)]
    with pytest.raises(UsageError, match='nowhere'):
        plan(ELSEWHERE, **elsewhere, param_scheduler=dict(student=by_iteration))


def test_iterations_of_a_selection_are_not_those_of_the_pool():
    by_iteration = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9)]
    few = {'train_dataloader.dataset.num_images': 256}
    found = plan(KD3, param_scheduler=dict(student=by_iteration), **few)
    assert found.varies
    # Two batches in an epoch, and of nine values the last one is the whole rate.
    assert [begin for begin, _ in found.courses['lr']['student']] == [
        0,
        0.5,
        1,
        1.5,
        2,
        2.5,
        3,
        3.5,
        4,
        40,
    ]


def test_slips_are_those_of_a_run():
    late = [dict(type='MultiStepLR', milestones=[1], begin=40)]
    with pytest.raises(UsageError, match='begins after 40 epochs'):
        plan(KD3, param_scheduler=dict(student=late))
    with pytest.raises(UsageError, match="Rename or remove 'teacher'"):
        plan(KD3, param_scheduler=dict(teacher=late))
