# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapperDict
from torch import nn

from mmdfkd.engine import DistillRunner, ReplicatedModel, RoleOptimWrapper
from mmdfkd.engine.compiled import compiler_error
from mmdfkd.engine.hooks import SpeedHook, speed_hook
from mmdfkd.models.classifiers import load_classifier, network_fingerprint
from mmdfkd.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config

FOLDED = {'default_hooks.speed.fold_teacher': True}
LAID_OUT = {'default_hooks.speed.channels_last': True}
PRODUCTS = {'default_hooks.speed.small_convs': True}
AMP = {'optim_wrapper.student.type': 'AutocastOptimWrapper'}


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def flat(state):
    return torch.cat([tensor.flatten().double() for tensor in state.values()])


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, SpeedHook))


def watch(runner):
    """Note for every pass of the teacher whether it happened in a step, and whether folded."""
    model, notes, stepping = runner.model, [], []
    step, extract, forward = model.train_step, model.teacher.extract, model.teacher.forward

    def noted(run):
        def call(images):
            folding = hook_of(runner).folding
            notes.append((bool(stepping), folding is not None and folding.enabled))
            return run(images)

        return call

    def train_step(*args, **kwargs):
        stepping.append(1)
        try:
            return step(*args, **kwargs)
        finally:
            stepping.clear()

    model.train_step = train_step
    model.teacher.extract, model.teacher.forward = noted(extract), noted(forward)
    runner.notes = notes


def test_off_by_default(train, tmp_path, finished):
    runner = train()
    hook = hook_of(runner)
    assert not hook.switches and hook.folding is None
    assert 'train_step' not in vars(runner.model)
    runs = [weights(f'{run.work_dir}/student.pth') for run in (runner, finished)]
    assert torch.equal(*map(flat, runs))


def test_teacher_is_folded_in_steps_and_nowhere_else(
    train, tmp_path, finished, monkeypatch, teacher_file
):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))  # so that logits are predicted
    runner = train(before=watch, **FOLDED)
    assert (True, True) in runner.notes and (False, False) in runner.notes
    assert all(stepping == folded for stepping, folded in runner.notes)
    teacher = runner.model.teacher
    assert network_fingerprint(teacher) == network_fingerprint(load_classifier(teacher_file))
    checkpoint = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=True)
    plain = torch.load(f'{finished.work_dir}/epoch_2.pth', weights_only=True)
    assert checkpoint['state_dict'].keys() == plain['state_dict'].keys()
    assert checkpoint['meta']['teacher_fingerprint'] == plain['meta']['teacher_fingerprint']
    students = [weights(tmp_path / 'run/student.pth'), weights(f'{finished.work_dir}/student.pth')]
    assert not torch.equal(*map(flat, students))  # rounding says that it was folded
    torch.testing.assert_close(*map(flat, students), rtol=1e-3, atol=1e-4)


def test_students_that_listen_are_served(train, inversion):
    """DeepInversion reads the teacher's statistics in its rounds, and distils in steps."""
    changes = {**inversion, 'train_cfg.max_epochs': 1}
    plain = train('plain', **copy.deepcopy(changes))  # merging takes keys out
    folded = train('folded', **changes, **FOLDED)
    banks = [run.train_dataloader.dataset for run in (plain, folded)]
    assert len(banks[0]) > 0
    assert (banks[0].images[:] == banks[1].images[:]).all()
    students = [weights(f'{run.work_dir}/student.pth') for run in (plain, folded)]
    assert not torch.equal(*map(flat, students))
    torch.testing.assert_close(*map(flat, students), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'switches',
    [{**FOLDED, **LAID_OUT, **PRODUCTS}, {**FOLDED, **LAID_OUT, **PRODUCTS, **AMP}],
    ids=['float32', 'bfloat16'],
)
def test_resumed_run_ends_like_an_uninterrupted_one(train, toy_config, tmp_path, switches):
    train('whole', **switches)
    cfg = toy_config('resumed', **switches)
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True))
    DistillRunner.from_cfg(cfg).train()
    whole, resumed = (weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'resumed'))
    assert whole.keys() == resumed.keys()
    assert torch.equal(flat(whole), flat(resumed))
    assert not torch.equal(flat(whole), flat(weights(tmp_path / 'whole/epoch_1.pth')))


def test_a_run_goes_on_with_other_switches(train, toy_config, tmp_path):
    train('fast', **FOLDED, **LAID_OUT)
    cfg = toy_config('plain')
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'fast/epoch_1.pth'), resume=True))
    DistillRunner.from_cfg(cfg).train()
    ends = [weights(tmp_path / name / 'student.pth') for name in ('fast', 'plain')]
    torch.testing.assert_close(*map(flat, ends), rtol=1e-3, atol=1e-4)


def test_layout_is_not_in_the_student_file(train, tmp_path):
    runner = train(**LAID_OUT)
    weight = runner.model.student.backbone.stages[2][0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    student = weights(tmp_path / 'run/student.pth')
    assert all(tensor.is_contiguous() for tensor in student.values())
    assert torch.equal(student['backbone.stages.2.0.conv2.weight'], weight)


def test_one_network_by_name(train):
    runner = train(**{'default_hooks.speed.channels_last': 'teacher', 'train_cfg.max_epochs': 1})
    teacher, student = (
        getattr(runner.model, name).backbone.stages[2][0].conv2.weight
        for name in ('teacher', 'student')
    )
    assert not teacher.is_contiguous() and student.is_contiguous()


@pytest.mark.parametrize('key', ['channels_last', 'compile'])
def test_an_unknown_network_is_named(train, key):
    with pytest.raises(UsageError, match=rf"speed\.{key} names 'pupil'.*teacher, student"):
        train(**{f'default_hooks.speed.{key}': ['teacher', 'pupil']})


def test_wrong_values_are_named():
    with pytest.raises(UsageError, match=r"compile_mode='fast'.*'reduce-overhead'"):
        SpeedHook(compile_mode='fast')
    with pytest.raises(UsageError, match=r"fold_teacher='yes'"):
        SpeedHook(fold_teacher='yes')
    with pytest.raises(UsageError, match=r"small_convs='no'"):
        SpeedHook(small_convs='no')
    model = SimpleNamespace(teacher=None, method='Supervised')
    with pytest.raises(UsageError, match='Supervised runs without a teacher'):
        SpeedHook(fold_teacher=True).switch_on(model, {}, logging.getLogger('test'))


def test_configs_are_checked(toy_config):
    check_config(toy_config(**FOLDED))
    with pytest.raises(UsageError, match=r"speed\.fold_techer.*'fold_teacher'"):
        check_config(toy_config(**{'default_hooks.speed.fold_techer': True}))


def test_without_a_compiler_the_run_goes_on(train, finished, monkeypatch, caplog):
    monkeypatch.setattr(speed_hook, 'compiler_error', lambda device: 'no g++')
    logging.getLogger('mmengine').propagate = True
    warnings = []
    runner = train(
        before=lambda runner: monkeypatch.setattr(runner.logger, 'warning', warnings.append),
        **{'default_hooks.speed.compile': ['teacher', 'student']},
    )
    (text,) = (text for text in warnings if 'teacher is no better' not in text)
    assert 'torch.compile does not work here (no g++)' in text
    runs = [weights(f'{run.work_dir}/student.pth') for run in (runner, finished)]
    assert torch.equal(*map(flat, runs))


def test_a_network_named_twice_is_compiled_once(monkeypatch):
    monkeypatch.setattr(speed_hook, 'compiler_error', lambda device: '')
    monkeypatch.setattr(torch, 'compile', lambda function, mode: function)
    model = nn.ModuleDict(dict(student=nn.Linear(1, 1)))
    hook = SpeedHook(compile=['student', 'student'])
    hook.before_train(
        SimpleNamespace(model=model, optim_wrapper={}, logger=logging.getLogger('test'))
    )
    assert len(hook.switches) == 1


def test_steps_and_rounds_are_compiled_while_the_run_lasts(monkeypatch):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = nn.Linear(1, 1)

        def train_step(self):
            return 'forward' in vars(self.student)

        synthesize = train_step

    modes = []
    monkeypatch.setattr(speed_hook, 'compiler_error', lambda device: '')
    monkeypatch.setattr(torch, 'compile', lambda function, mode: modes.append(mode))
    model, hook = Model(), SpeedHook(compile='student', compile_mode='max-autotune')
    runner = SimpleNamespace(model=model, optim_wrapper={}, logger=logging.getLogger('test'))
    hook.before_train(runner)
    assert (model.train_step(), model.synthesize(), modes) == (True, True, ['max-autotune'])
    hook.after_train(runner)
    assert (model.train_step(), model.synthesize(), hook.switches) == (False, False, [])


def test_a_teacher_without_batch_norm_has_nothing_to_fold(caplog):
    hook = SpeedHook(fold_teacher=True)
    teacher = load_classifier('mmdfkd://lenet5_digits').eval().requires_grad_(False)
    model = SimpleNamespace(teacher=teacher)
    with caplog.at_level(logging.INFO, 'test'):
        hook.switch_on(model, {}, logging.getLogger('test'))
    assert 'none of the 0 BatchNorm layers' in caplog.text and not hook.switches


def test_states_of_a_checkpoint_are_laid_out_like_the_weights(caplog):
    model = nn.ModuleDict(dict(student=nn.Conv2d(3, 4, 3), critic=nn.Linear(1, 1)))
    optimizer = torch.optim.SGD(model['student'].parameters(), 0.1, momentum=0.9)
    wrapper = RoleOptimWrapper(optimizer=optimizer)
    wrapper.update_params(model['student'](torch.ones(1, 3, 4, 4)).sum())
    with caplog.at_level(logging.INFO, 'test'):
        SpeedHook(channels_last=True).switch_on(
            model, dict(student=wrapper), logging.getLogger('test')
        )
    assert 'weights of student in channels-last layout' in caplog.text
    weight = model['student'].weight
    momentum = optimizer.state[weight]['momentum_buffer']
    assert momentum.stride() == weight.stride() == (27, 1, 9, 3)


@pytest.mark.parametrize(
    ('mode', 'refused'),
    [('default', False), ('reduce-overhead', True), ('max-autotune', True)],
)
def test_cuda_graphs_and_accumulated_gradients_do_not_go_together(monkeypatch, mode, refused):
    monkeypatch.setattr(speed_hook, 'compiler_error', lambda device: '')
    monkeypatch.setattr(torch, 'compile', lambda function, mode: function)
    model = nn.ModuleDict(dict(student=nn.Linear(1, 1)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=OptimWrapperDict(
            student=RoleOptimWrapper(optimizer=optimizer, accumulative_counts=2)
        ),
        logger=logging.getLogger('test'),
    )
    hook = SpeedHook(compile='student', compile_mode=mode)
    if refused:
        match = rf"student\.accumulative_counts=2.*compile_mode='{mode}'.*'default'"
        with pytest.raises(UsageError, match=match):
            hook.before_train(runner)
    else:
        hook.before_train(runner)
        assert len(hook.switches) == 1


def test_switches_reach_a_model_of_several_processes(teacher_file):
    network = dict(
        backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=1),
        head=dict(in_channels=4, num_classes=5),
    )
    teacher = dict(checkpoint=str(teacher_file))
    model = ReplicatedModel(MODELS.build(dict(type='KD', teacher=teacher, student=network)))
    assert speed_hook.networks_of(model).keys() == {'teacher', 'student'}
    seen = []
    model.module.train_step = lambda: seen.append(hook.folding.enabled)
    hook = SpeedHook(fold_teacher=True)
    runner = SimpleNamespace(model=model, optim_wrapper={}, logger=logging.getLogger('test'))
    hook.before_train(runner)
    runner.model.train_step()
    hook.after_train(runner)
    assert seen == [True] and 'train_step' not in vars(model)
    convs = [layer for layer in model.teacher.modules() if isinstance(layer, nn.Conv2d)]
    assert {type(layer) for layer in convs} == {nn.Conv2d}


def lenet_step(**switches):
    """A step of KD³ between LeNet5s: the student behind it, and its maps outside the step."""
    torch.manual_seed(0)
    images = dict(input_shape=(1, 32, 32), mean=[127.5], std=[64.0])
    head = dict(in_channels=120, num_classes=10, hidden_channels=(84,))
    teacher = MODELS.build(
        dict(type='Classifier', backbone=dict(type='LeNet5'), head=head, **images)
    )
    student = dict(backbone=dict(type='LeNet5', width=0.5))
    model = MODELS.build(dict(type='KD3', teacher=teacher, student=student)).train()
    wrapper = dict(student=dict(optimizer=dict(type='SGD', lr=0.1)))
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type='RoleOptimWrapperConstructor', optim_wrapper_cfg=wrapper)
    )(model)
    runner = SimpleNamespace(model=model, optim_wrapper={}, logger=logging.getLogger('t'))
    SpeedHook(**switches).before_train(runner)
    batch = dict(inputs=torch.randint(256, (8, 1, 32, 32), dtype=torch.uint8))
    before = model.student.backbone(torch.ones(2, 1, 32, 32))[0]
    model.train_step(batch, wrapper)
    return flat(model.student.state_dict()), before


def test_small_convolutions_are_products_in_steps_and_nowhere_else():
    (plain, maps), (multiplied, same_maps) = lenet_step(), lenet_step(small_convs=True)
    assert not torch.equal(plain, multiplied)  # rounding says that they were products
    torch.testing.assert_close(plain, multiplied, rtol=1e-4, atol=1e-6)
    assert torch.equal(maps, same_maps)


def test_small_convolutions_are_left_to_other_devices(caplog):
    model = SimpleNamespace(parameters=lambda: iter([torch.empty(1, device='meta')]))
    hook = SpeedHook(small_convs=True)
    with caplog.at_level(logging.INFO, 'test'):
        hook.before_train(
            SimpleNamespace(model=model, optim_wrapper={}, logger=logging.getLogger('test'))
        )
    assert 'does nothing on meta' in caplog.text and not hook.switches


@pytest.mark.slow
@pytest.mark.timeout(900)  # compilers take their time on a busy machine
def test_compiled_run_resumes_bit_for_bit(train, toy_config, tmp_path, finished):
    reason = compiler_error(torch.device('cpu'))
    if reason:
        pytest.skip(reason)
    switches = {'default_hooks.speed.compile': ['teacher', 'student'], **FOLDED}
    train('whole', **switches)
    cfg = toy_config('resumed', **switches)
    cfg.merge_from_dict(dict(load_from=str(tmp_path / 'whole/epoch_1.pth'), resume=True))
    DistillRunner.from_cfg(cfg).train()
    whole, resumed = (weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'resumed'))
    assert whole.keys() == weights(f'{finished.work_dir}/epoch_2.pth').keys()
    assert torch.equal(flat(whole), flat(resumed))
    students = [
        weights(tmp_path / 'whole/student.pth'),
        weights(f'{finished.work_dir}/student.pth'),
    ]
    assert not torch.equal(*map(flat, students))
    torch.testing.assert_close(*map(flat, students), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('kind', ['SGD', 'Adam'])
def test_a_fused_optimiser_goes_on_in_another_layout(kind):
    """States follow the weights: the next step is that of the old layout."""
    options = dict(momentum=0.9) if kind == 'SGD' else {}
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(3, 4, 3)
        optimizer = getattr(torch.optim, kind)(conv.parameters(), lr=0.1, fused=True, **options)
        gradient = torch.randn(conv.weight.shape)
        for step in range(2):
            conv.weight.grad = torch.empty_like(conv.weight).copy_(gradient * (step + 1))
            conv.bias.grad = torch.ones(4)
            optimizer.step()
            conv.to(memory_format=layout)
            speed_hook.lay_out_states(optimizer)
        ends.append(conv.weight.detach().contiguous())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)
