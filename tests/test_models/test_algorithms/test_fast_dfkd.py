# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import FastDFKD
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SMALL = dict(
    generator=dict(latent_size=4, widths=(4, 4), head='sigmoid', bias=False),
    batch_size=8,
    iterations=3,
    padding=2,
    warmup_rounds=0,
)
OFF = dict(loss_weight=0.0)


def optimizers_of(model, lr=0.01, kind='Adam', wrapper='OptimWrapper'):
    config = dict(type=wrapper, optimizer=dict(type=kind, lr=lr))
    return RoleOptimWrapperConstructor({role: config for role in model.roles()})(model)


def synthesize(model, number=0, adversary=True, optimizers=None):
    torch.manual_seed(100 + number)
    return model.synthesize(optimizers or optimizers_of(model), number, adversary)


@pytest.fixture
def make(teacher, student):
    return lambda **options: FastDFKD(teacher, student, **{**SMALL, **options}).train()


@pytest.fixture
def copies(monkeypatch):
    """The copies of meta generators, as they are made."""
    made = []

    def remember(model):
        made.append(copy.deepcopy(model.generator))
        return made[-1]

    monkeypatch.setattr(FastDFKD, 'copy_generator', remember)
    return made


# Against the published code -------------------------------------------------------------------


@pytest.mark.parametrize('meta', ['fomaml', 'reptile'])
def test_two_rounds_of_published_code(
    golden, toy_network, generation_state, snapshot, changed, copies, monkeypatch, meta
):
    """Three inner steps each, with weights 10, 0.4 and 1.1, on their random numbers."""
    arrays = golden('fast_dfkd')
    teacher = build_teacher(toy_network(4, arrays, 'fomaml/teacher'))
    student = toy_network(3, arrays, 'fomaml/student')
    model = FastDFKD(
        teacher,
        student,
        generator=dict(latent_size=7, widths=(3, 3), head='sigmoid', bias=False),
        optimizer=dict(lr=2e-3),
        meta=meta,
        reptile_alpha=67.0,
        batch_size=6,
        iterations=3,
    )
    model.double().train()
    unit = torch.tensor([0.4914, 0.4822, 0.4465, 0.2023, 0.1994, 0.2010], dtype=torch.float64)
    mean, std = (255 * unit).view(2, 3, 1, 1)
    model.generator.head.mean, model.generator.head.std = mean, std
    model.generator.load_state_dict(generation_state(arrays, 'fomaml/meta_before'))
    model.view.forward = lambda images: images
    outer = dict(type='Adam', lr=6e-3, betas=(0.5, 0.999))
    config = {role: dict(optimizer=outer) for role in model.roles()}
    optimizers = RoleOptimWrapperConstructor(config)(model)
    before = [snapshot(network) for network in (teacher, student)]
    latents, gradients = [], []
    step = optimizers['generator'].step

    def remember():
        named = model.generator.named_parameters()
        gradients.append({name: parameter.grad.clone() for name, parameter in named})
        step()

    monkeypatch.setattr(optimizers['generator'], 'step', remember)

    close = dict(atol=1e-9, rtol=0)
    for number in range(2):
        group = f'{meta}/round{number}'
        latents.append(arrays[f'{group}/draws/00_randn'].clone())
        targets = arrays[f'{group}/draws/01_randint']
        monkeypatch.setattr(model, 'draw_latent', Mock(return_value=latents[-1]))
        monkeypatch.setattr(model, 'draw_targets', Mock(return_value=targets))
        made = model.synthesize(optimizers, number)
        expected = arrays[f'{group}/images01_best']
        torch.testing.assert_close((made.images * std + mean) / 255, expected, **close)
        for state, name in (
            (model.generator.state_dict(), 'meta_after'),
            (copies[-1].state_dict(), 'fast_after'),
            (gradients[-1], 'meta_grad'),
        ):
            for key, expected in generation_state(arrays, f'{group}/{name}').items():
                torch.testing.assert_close(state[key], expected, msg=f'{name} {key}', **close)
        if meta == 'fomaml':
            torch.testing.assert_close(latents[-1].detach(), arrays[f'{group}/z_after'], **close)
    assert not changed(teacher, before[0]) and not changed(student, before[1])
    assert model.generator.norm.num_batches_tracked == 0  # the meta generator never runs
    assert model.average.updates == 2


# The loss -------------------------------------------------------------------------------------


def test_every_term_and_its_sign(make):
    model = make(padding=0, flip=False, bn_momentum=0.0)
    model.student.eval()
    images = torch.randn(8, 1, 16, 16)
    targets = torch.arange(8) % 5
    loss, statistics, logs = model.synthesis_loss(images, targets)
    logits, student = model.teacher(images), model.student(images)
    torch.testing.assert_close(logs['loss_class'], 0.4 * F.cross_entropy(logits, targets))
    p, q = logits.softmax(1), student.softmax(1)
    agree = logits.argmax(1) == student.argmax(1)
    discrepancy = ((p * (p / q).log()).sum(1) * agree).sum() / 8
    torch.testing.assert_close(logs['discrepancy'], discrepancy, atol=1e-6, rtol=1e-4)
    distance = sum(
        (s.mean - s.running_mean).norm() + (s.var - s.running_var).norm() for s in statistics
    )
    torch.testing.assert_close(logs['loss_bn'], 10 * distance)
    expected = logs['loss_bn'] + logs['loss_class'] - 1.1 * discrepancy
    torch.testing.assert_close(loss, expected)


def test_both_networks_see_the_view(make):
    model = make()
    model.view.forward = lambda images: images + 1
    images = torch.randn(8, 1, 16, 16)
    seen = []
    for network in (model.teacher, model.student):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.synthesis_loss(images, torch.arange(8) % 5)
    assert len(seen) == 2 and all(torch.equal(found, images + 1) for found in seen)


def test_latents_have_a_rate_of_their_own(make, monkeypatch):
    """The first step of Adam is as long as its rate."""
    model = make(latent_lr=0.25, iterations=1)
    latent = torch.randn(8, 4)
    before = latent.clone()
    monkeypatch.setattr(model, 'draw_latent', lambda: latent)
    synthesize(model)
    moved = (latent.detach() - before).abs()
    torch.testing.assert_close(moved.median(), torch.tensor(0.25), atol=1e-3, rtol=0)


def test_momentum_lets_batches_specialise(make):
    """After a round, a batch weighs one tenth in what is compared, and so does its gradient."""
    model = make(class_weight=0.0, adversarial_weight=0.0, padding=0, flip=False)
    targets = torch.zeros(8, dtype=torch.int64)
    images = torch.randn(8, 1, 16, 16)

    def gradient():
        leaf = images.clone().requires_grad_()
        loss, statistics, _ = model.synthesis_loss(leaf, targets)
        loss.backward()
        return leaf.grad, statistics

    plain, statistics = gradient()
    model.average.update(statistics)  # average and batch agree: the same distance
    torch.testing.assert_close(gradient()[0], 0.1 * plain, atol=1e-6, rtol=1e-3)


# A round --------------------------------------------------------------------------------------


@pytest.mark.parametrize('meta', ['fomaml', 'reptile', 'none'])
def test_who_changes_in_a_round(make, snapshot, changed, meta):
    model = make(meta=meta)
    before = [snapshot(part) for part in (model.teacher, model.student)]
    start = copy.deepcopy(dict(model.generator.named_parameters()))
    buffers = copy.deepcopy(dict(model.generator.named_buffers()))
    steps = []
    torch.manual_seed(0)
    made = model.synthesize(optimizers_of(model), 0, True, lambda: steps.append(1))
    assert not changed(model.teacher, before[0]) and not changed(model.student, before[1])
    assert len(steps) == 3
    assert made.images.shape == (8, 1, 16, 16) and not made.images.requires_grad
    assert set(made.logs) == {'loss_bn', 'loss_class', 'discrepancy'}
    assert all(value.ndim == 0 and not value.requires_grad for value in made.logs.values())
    for name, parameter in model.generator.named_parameters():
        assert not torch.equal(parameter, start[name])
        assert meta == 'none' or parameter.grad is None
    moved = not torch.equal(model.generator.norm.running_mean, buffers['norm.running_mean'])
    assert moved == (meta == 'none')  # only there it is the meta generator that runs
    assert not any(m._forward_pre_hooks for m in model.teacher.modules())
    for network in (model.teacher, model.student):
        assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in model.student.parameters())
    assert model.student.training and model.average.updates == 1
    assert not model.average.mean.requires_grad


def test_outer_step_is_the_sum_of_inner_gradients(make, copies):
    """With SGD outside and inside, both at the same rate, theta lands where its copy does."""
    model = make(latent_lr=0.1)
    model.optimizer = dict(type='SGD', lr=0.1)
    optimizers = optimizers_of(model, lr=0.1, kind='SGD')
    synthesize(model, optimizers=optimizers)
    for found, expected in zip(model.generator.parameters(), copies[0].parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    first = [parameter.clone() for parameter in model.generator.parameters()]
    synthesize(model, 1, optimizers=optimizers)  # gradients of the first round are gone
    for found, start, end in zip(
        model.generator.parameters(), first, copies[1].parameters(), strict=True
    ):
        torch.testing.assert_close(found, end)
        assert not torch.equal(found, start)


def test_reptile_goes_towards_the_copy(make, copies):
    model = make(meta='reptile', reptile_alpha=2.0)
    start = [parameter.detach().clone() for parameter in model.generator.parameters()]
    synthesize(model, optimizers=optimizers_of(model, lr=0.25, kind='SGD'))
    for found, begin, end in zip(
        model.generator.parameters(), start, copies[0].parameters(), strict=True
    ):
        torch.testing.assert_close(found, begin + 0.5 * (end - begin))


def test_sequential_reuse_is_one_generator(make, copies):
    model = make(meta='none')
    synthesize(model)
    assert not copies


def test_a_round_is_a_function_of_weights_and_seed(make):
    model = make()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    made = synthesize(model)
    model.load_state_dict(first)
    again = synthesize(model)
    assert torch.equal(made.images, again.images) and torch.equal(made.targets, again.targets)
    assert not torch.equal(made.images, synthesize(model, 1).images)


def test_meta_learning_makes_later_rounds_better(make):
    """Of the same few inner steps: what the method is about."""
    model = make(adversarial_weight=0.0, bn_momentum=0.0, batch_size=16)
    optimizers = optimizers_of(model, lr=0.02)
    losses = []
    for number in range(20):
        logs = synthesize(model, number, optimizers=optimizers).logs
        losses.append(sum(value.item() for value in logs.values()))
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])


# Resetting the first layer --------------------------------------------------------------------


@pytest.mark.parametrize(
    ('reset', 'expected'),
    [
        ('linear', {'linear.weight', 'linear.bias'}),
        ('legacy', {'linear.weight', 'linear.bias', 'norm.weight'}),
        (False, set()),
    ],
)
def test_what_is_reset_and_when(make, snapshot, changed, reset, expected):
    """Published: linear.weight, linear.bias, bn0.weight, ahead of round 120 + warm-up."""
    model = make(reset_l0=reset, reset_at=2, warmup_rounds=3, optimizer=dict(lr=0.0), latent_lr=0.0)
    optimizers = optimizers_of(model, lr=0.0)
    for number in range(7):
        before = snapshot(model.generator)
        synthesize(model, number, optimizers=optimizers)
        assert changed(model.generator, before) == (expected if number == 4 else set())
    if reset:
        assert not model.generator.linear.bias.any()
        assert model.generator.linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (model.generator.norm.weight.abs().max() < 0.1) == (reset == 'legacy')


# Learning the latents -------------------------------------------------------------------------


@pytest.mark.parametrize('meta', ['fomaml', 'reptile'])
def test_latents_may_be_learnt(make, meta):
    model = make(meta=meta, meta_latent=True, latent_reset=3)
    assert model.roles().keys() == {'student', 'generator', 'latent'}
    optimizers = optimizers_of(model, lr=0.1)
    seen = [model.latents[0].detach().clone()]
    for number in range(4):
        synthesize(model, number, optimizers=optimizers)
        seen.append(model.latents[0].detach().clone())
    steps = [(b - a).abs().max().item() for a, b in zip(seen[:-1], seen[1:], strict=True)]
    assert 0 < max(steps[:3]) < 0.5  # Adam: about 0.1 a round
    assert steps[3] > 1  # drawn anew ahead of round 3
    assert model.latents[0].grad is None


def test_latents_are_fresh_by_default(make):
    model = make()
    assert model.roles().keys() == {'student', 'generator'} and not len(model.latents)


# Switches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'adversary', 'student_passes', 'absent'),
    [
        ({}, True, 3, ''),
        ({}, False, 0, 'discrepancy'),
        (dict(adversarial_weight=0.0), True, 0, 'discrepancy'),
        (dict(bn_statistics=OFF), True, 3, 'loss_bn'),
    ],
)
def test_what_is_left_out(make, monkeypatch, options, adversary, student_passes, absent):
    model = make(**options)
    forward, seen = model.student.forward, []
    monkeypatch.setattr(model.student, 'forward', lambda x: seen.append(1) or forward(x))
    logs = synthesize(model, 0, adversary).logs
    assert len(seen) == student_passes
    assert logs.keys() == {'loss_bn', 'loss_class', 'discrepancy'} - {absent}


def test_a_teacher_without_batch_norm(student):
    lenet = Classifier(
        dict(type='LeNet5', width=0.5),
        dict(in_channels=60, num_classes=5),
        input_shape=(1, 32, 32),
        mean=[78.0],
        std=[82.6],
    )
    teacher = build_teacher(lenet)
    with pytest.raises(UsageError, match='no BatchNorm'):
        FastDFKD(teacher, student, **SMALL)
    model = FastDFKD(teacher, student, **SMALL, bn_statistics=OFF)
    assert set(synthesize(model.train()).logs) == {'loss_class', 'discrepancy'}


def test_defaults_are_published(teacher, student):
    model = FastDFKD(teacher, student)
    assert (model.bn_statistics.loss_weight, model.average.momentum) == (10, 0.9)
    assert (model.class_weight, model.adversarial_weight) == (0.4, 1.1)
    assert model.optimizer == dict(type='Adam', lr=3e-3, betas=(0.5, 0.999))
    assert (model.latent_lr, model.iterations, model.meta) == (0.01, 5, 'fomaml')
    assert (model.batch_size, model.rounds, model.warmup_rounds) == (256, 1, 20)
    assert (model.reset_at, model.latent_reset) == (120, 50)
    assert model.divergence.temperature == 20
    assert (model.first_layers, model.reptile_alpha) == (('linear',), 1)
    channels = [m.num_features for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.average.mean.shape == model.average.var.shape == (sum(channels),)


def test_a_round_after_a_validation_is_like_any_other(make):
    """Which leaves all networks in eval mode."""
    model = make()
    validated = copy.deepcopy(model).eval()
    assert torch.equal(synthesize(model).images, synthesize(validated).images)


def test_views_are_those_that_were_asked_for(teacher, student, monkeypatch):
    asked = []
    path = 'mmdfkd.models.algorithms.fast_dfkd.crop_view'
    monkeypatch.setattr(path, lambda network, *how: asked.append(how))
    FastDFKD(teacher, student)
    FastDFKD(teacher, student, padding=2, flip=False)
    assert asked == [(4, True), (2, False)]


def test_mixed_precision(make):
    model = make()
    made = synthesize(model, optimizers=optimizers_of(model, wrapper=AutocastOptimWrapper))
    assert made.images.dtype == model.average.mean.dtype == torch.float32
    assert all(value.dtype == torch.float32 and value.isfinite() for value in made.logs.values())


def test_a_resumed_run_makes_the_same_images(make):
    """The meta generator, its optimiser and the averages are in the checkpoint."""
    model = make()
    optimizers = optimizers_of(model)
    for number in range(3):
        synthesize(model, number, optimizers=optimizers)
    resumed = make()
    later = optimizers_of(resumed)
    resumed.load_state_dict(model.state_dict())
    later.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    assert resumed.average.updates == 3
    expected, found = (
        synthesize(m, 3, optimizers=o) for m, o in ((model, optimizers), (resumed, later))
    )
    assert torch.equal(expected.images, found.images)
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, resumed.generator.state_dict()[name])


def _two_rounds(teacher, student):
    torch.manual_seed(3)
    model = FastDFKD(teacher, MODELS.build(student), **SMALL).train()
    optimizers = optimizers_of(model)
    made = [synthesize(model, number, optimizers=optimizers).images for number in range(2)]
    return torch.cat(made), model.average.mean, model.generator.linear.weight.detach()


def _rank(rank, teacher, student):
    return _two_rounds(teacher, student)


def test_two_processes_make_what_one_makes(teacher, student, in_two_processes):
    student = dict(student, input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    expected = _two_rounds(teacher, student)
    for found in in_two_processes(_rank, teacher, student):
        torch.testing.assert_close(found, expected)


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(meta='maml'), r"model\.meta='maml'.*'fomaml', 'reptile', 'none'"),
        (dict(reset_l0='first'), r"model\.reset_l0='first'.*'linear', 'legacy', False"),
        (dict(meta='none', meta_latent=True), r'model\.meta_latent needs an outer step'),
        (dict(latent_reset=0), r'model\.latent_reset is 0'),
        (
            dict(reset_l0='legacy', generator=dict(latent_size=4, widths=(4, 4), first_norm=False)),
            r"model\.reset_l0='legacy' .* generator\.norm anew",
        ),
        (dict(bn_momentum=1.0), r'model\.bn_momentum is 1\.0'),
    ],
)
def test_usage_errors(make, options, words):
    with pytest.raises(UsageError, match=words):
        make(**options)
