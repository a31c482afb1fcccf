# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import math
from functools import partial
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import CMI
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SMALL = dict(
    generator=dict(latent_size=4, widths=(4, 4), head='sigmoid', bias=False),
    batch_size=8,
    iterations=3,
    bank_size=24,
    negatives=6,
    head_channels=5,
    padding=2,
)
OFF = dict(loss_weight=0.0)


def optimizers_of(model, lr=0.01, wrapper='OptimWrapper'):
    config = dict(type=wrapper, optimizer=dict(type='Adam', lr=lr))
    return RoleOptimWrapperConstructor({role: config for role in model.roles()})(model)


def synthesize(model, number=0, adversary=True, optimizers=None):
    torch.manual_seed(100 + number)
    return model.synthesize(optimizers or optimizers_of(model), number, adversary)


@pytest.fixture
def make(teacher, student):
    return lambda **options: CMI(teacher, student, **{**SMALL, **options}).train()


# Against the published code -------------------------------------------------------------------


@pytest.fixture
def golden_model(golden, toy_network, generation_state):
    """Makes networks of the golden steps in double precision, and their views."""
    arrays = golden('cmi')
    teacher = build_teacher(toy_network(4, arrays, 'step/teacher'))
    student = toy_network(3, arrays, 'step/student')
    settings = dict(
        generator=dict(latent_size=7, widths=(3, 3), head='sigmoid', bias=False),
        optimizer=dict(lr=1e-2),
        contrast=dict(temperature=0.2),
        head_channels=6,
        bank_size=20,
        negatives=4,
        batch_size=6,
        iterations=2,
    )

    def make(**options):
        model = CMI(teacher, student, **{**settings, **options}).double().train()
        unit = torch.tensor([0.4914, 0.4822, 0.4465, 0.2023, 0.1994, 0.2010], dtype=torch.float64)
        model.generator.head.mean, model.generator.head.std = (255 * unit).view(2, 3, 1, 1)
        model.head.load_state_dict(generation_state(arrays, 'step/head_before'))
        model.global_view.forward = lambda images: images
        model.local_view.forward = lambda images: images.flip(3)[:, :, 1:7, 1:7]
        optimizer = dict(type='Adam', lr=1e-2)
        config = {role: dict(optimizer=optimizer) for role in model.roles()}
        return model, RoleOptimWrapperConstructor(config)(model)

    return make


def test_two_rounds_of_published_code(
    golden, golden_model, generation_state, snapshot, changed, monkeypatch
):
    """Two iterations each, with weights 1, 1, 0.5 and 0.8, on their random numbers."""
    arrays = golden('cmi')
    model, optimizers = golden_model()
    before = [snapshot(network) for network in (model.teacher, model.student)]
    mean, std = model.generator.head.mean, model.generator.head.std
    close = dict(atol=1e-9, rtol=0)
    seen = []
    model.contrast.register_forward_hook(
        lambda module, views, loss: seen.append((views[0] @ views[1].T / 0.2, loss / 0.8))
    )
    for number in range(2):
        group = f'step/round{number}'
        start = generation_state(arrays, f'{group}/generator_after_reset')
        rows = [model.bank.rows[arrays[f'{group}/draws/0{step}_py_sample']] for step in (2, 3)]
        for owner, name, values in (
            (model, 'reset', partial(model.generator.load_state_dict, start)),
            (model, 'draw_latent', [arrays[f'{group}/draws/00_randn'].clone()]),
            (model, 'draw_targets', [arrays[f'{group}/targets']]),
            (model.bank, 'draw', rows),
        ):
            monkeypatch.setattr(owner, name, Mock(side_effect=values))
        made = model.synthesize(optimizers, number)

        expected = arrays[f'{group}/images01_best']
        torch.testing.assert_close((made.images * std + mean) / 255, expected, **close)
        for network, name in ((model.generator, 'generator_after'), (model.head, 'head_after')):
            state = network.state_dict()
            for key, expected in generation_state(arrays, f'{group}/{name}').items():
                torch.testing.assert_close(state[key], expected, msg=f'{name} {key}', **close)
        rows = 6 * (number + 1)
        assert len(model.bank) == rows
        expected = arrays[f'{group}/bank_after'][:rows]
        torch.testing.assert_close(model.bank.rows[:rows], expected, **close)
        for step, (logits, loss) in enumerate(seen[-2:]):
            torch.testing.assert_close(logits, arrays[f'{group}/it{step}_cr_logits'], **close)
            torch.testing.assert_close(loss, arrays[f'{group}/it{step}_loss_cr'], **close)
        # in both rounds the second iterate is the better one
        loss_class = made.logs['loss_class']
        torch.testing.assert_close(loss_class, arrays[f'{group}/it1_ce_teacher'], **close)
    assert not changed(model.teacher, before[0]) and not changed(model.student, before[1])
    assert all(parameter.grad is None for parameter in model.student.parameters())
    assert model.student.training


def test_a_bank_that_is_exactly_full(golden, golden_model):
    """Where the published code loses its negatives in the third of five rounds, and optimises
    nothing, ours goes on; everywhere else it has as many rows of logits."""
    arrays = golden('cmi')
    model, optimizers = golden_model(bank_size=12)
    published = arrays['edge/best_is_iter0__best_is_last__n_rows'][:, 2].tolist()
    assert published == [6, 10, 6, 10, 10]
    rows = []
    model.contrast.register_forward_hook(lambda module, views, loss: rows.append(len(views[0])))
    for number in range(5):
        made = synthesize(model, number, optimizers=optimizers)
        assert all(value.isfinite() for value in made.logs.values())
    assert rows[::2] == [6, 10, 10, 10, 10] and model.bank.added == 30 and len(model.bank) == 12


# The loss -------------------------------------------------------------------------------------


def test_every_term_and_its_sign(make):
    model = make(padding=0, flip=False, scale=(1.0, 1.0), contrast=dict(temperature=0.2))
    model.student.eval()
    images = torch.randn(8, 1, 16, 16)
    targets = torch.arange(8) % 5
    loss, features, logs = model.synthesis_loss(images, targets)
    logits, student = model.teacher(images), model.student(images)
    cross_entropy = F.cross_entropy(logits, targets)
    torch.testing.assert_close(logs['loss_class'], cross_entropy)
    p, q = logits.softmax(1), student.softmax(1)
    agree = logits.argmax(1) == student.argmax(1)
    discrepancy = ((p * (p / q).log()).sum(1) * agree).sum() / 8
    assert 0 < agree.sum() < 8
    torch.testing.assert_close(logs['discrepancy'], discrepancy, atol=1e-6, rtol=1e-4)
    expected = logs['loss_bn'] + cross_entropy + logs['loss_contrast'] - 0.5 * discrepancy
    torch.testing.assert_close(loss, expected)
    # without an augmentation both views are the image
    local_features, global_features = features.chunk(2, 1)
    torch.testing.assert_close(local_features, global_features, atol=1e-5, rtol=1e-4)
    embedding = model.head(global_features)
    own = F.cross_entropy(embedding @ embedding.T / 0.2, torch.arange(8))
    torch.testing.assert_close(logs['loss_contrast'], 0.8 * own, atol=1e-4, rtol=1e-4)


def test_who_sees_which_view(make):
    model = make()
    model.global_view.forward, model.local_view.forward = (lambda x: x + 1), (lambda x: x - 1)
    images = torch.randn(8, 1, 16, 16)
    seen = []
    for network in (model.teacher, model.student):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.synthesis_loss(images, torch.arange(8) % 5)
    assert len(seen) == 3
    for found, expected in zip(seen, (images + 1, images - 1, images + 1), strict=True):
        assert torch.equal(found, expected)  # T(x_g), T(x_l), S(x_g)


def test_contrast_moves_images_through_the_local_view_only(make):
    model = make(bn_statistics=OFF, class_weight=0.0, adversarial_weight=0.0)
    images = torch.randn(8, 1, 16, 16)
    targets = torch.zeros(8, dtype=torch.int64)

    def gradient(global_images, local_images):
        model.global_view.forward = lambda images: images * global_images
        model.local_view.forward = lambda images: images * local_images
        leaf = images.clone().requires_grad_()
        model.synthesis_loss(leaf, targets)[0].backward()
        return leaf.grad.abs().sum().item()

    one = torch.ones(())
    assert gradient(one, one) > 0
    assert gradient(one, 0 * one) == 0  # nothing through the keys
    model.zero_grad()
    assert gradient(one.expand(8, 1, 16, 16), one) > 0
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_the_adversary_raises_the_discrepancy(teacher):
    """Alone, against a student that is nearly the teacher."""
    options = dict(bn_statistics=OFF, contrast=OFF, class_weight=0.0, padding=0, flip=False)
    torch.manual_seed(0)
    model = CMI(teacher, teacher.config, **{**SMALL, **options}, optimizer=dict(lr=1e-2))
    model.student.load_state_dict(teacher.state_dict())
    for parameter in model.student.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    values = []
    for model.iterations in (1, 20):
        values.append(synthesize(model).logs['discrepancy'].item())
    assert 0 < 2 * values[0] < values[1]


# A round --------------------------------------------------------------------------------------


def test_who_changes_in_a_round(make, snapshot, changed):
    model = make()
    parts = (model.teacher, model.student, model.generator, model.head)
    before = [snapshot(part) for part in parts]
    steps = []
    torch.manual_seed(0)
    made = model.synthesize(optimizers_of(model), 0, True, lambda: steps.append(1))
    assert not changed(model.teacher, before[0]) and not changed(model.student, before[1])
    assert changed(model.generator, before[2])
    assert changed(model.head, before[3]) == before[3].keys()
    assert len(steps) == 3 and len(model.bank) == 8
    assert made.images.shape == (8, 1, 16, 16) and not made.images.requires_grad
    assert made.targets.tolist() == sorted(made.targets.tolist())
    assert set(made.logs) == {'loss_bn', 'loss_class', 'loss_contrast', 'discrepancy'}
    assert all(value.ndim == 0 and not value.requires_grad for value in made.logs.values())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.teacher.modules())
    for network in (model.teacher, model.student):
        assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in model.student.parameters())
    assert model.student.training and not model.teacher.training


def test_a_round_is_a_function_of_weights_and_seed(make):
    model = make()
    first = model.state_dict()
    first = {name: value.clone() for name, value in first.items()}
    made = synthesize(model)
    model.load_state_dict(first)
    again = synthesize(model)
    assert torch.equal(made.images, again.images) and torch.equal(made.targets, again.targets)
    assert not torch.equal(made.images, synthesize(model, 1).images)


def test_the_generator_is_new_in_each_round(make):
    model = make(iterations=1)
    model.generator.load_state_dict(
        {name: torch.full_like(v, 3) for name, v in model.generator.state_dict().items()}
    )
    torch.manual_seed(1)
    model.reset()
    state = model.generator.state_dict()
    assert state['linear.weight'].std().item() == pytest.approx(0.02, rel=0.1)
    assert (state['norm.weight'] - 1).abs().max() < 0.1 and state['norm.weight'].std() > 0
    for name in ('linear.bias', 'norm.bias', 'conv.bias'):
        assert not state[name].any()
    assert (state['norm.running_mean'] == 3).all()  # as published; they are never used
    grey = (127.5 - 120) / 60
    images = synthesize(model).images
    assert (images - grey).abs().mean() < 0.2  # of 4.25 from black to white


def test_the_generator_may_go_on(make, snapshot):
    model = make(reset_generator=False, iterations=2, optimizer=dict(lr=0.0))
    before = snapshot(model.generator)
    synthesize(model)
    for name, parameter in model.generator.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_best_iterate_is_kept(make, monkeypatch):
    model = make(iterations=4, contrast=OFF)
    values = iter([3.0, 1.0, math.nan, 2.0])
    offered = []

    def loss_of(images, targets, adversary):
        offered.append(images.detach().clone())
        value = next(values)
        loss = images.sum() * 0 + value
        return loss, images.new_empty(8, 0), dict(loss_bn=loss.detach())

    monkeypatch.setattr(model, 'synthesis_loss', loss_of)
    made = synthesize(model)
    assert torch.equal(made.images, offered[1]) and made.logs['loss_bn'] == 1


def test_a_round_without_a_finite_loss_is_refused(make):
    model = make(class_weight=math.nan)
    with pytest.raises(UsageError, match=r'The loss of round 8 .* model\.optimizer\.lr'):
        synthesize(model, 7)
    assert len(model.bank) == 0


# Switches -------------------------------------------------------------------------------------


def passes(model, monkeypatch):
    """Count the passes of teacher and student."""
    counts = dict(teacher=0, student=0)
    for name in counts:
        network = getattr(model, name)
        forward = network.forward

        def counted(images, name=name, forward=forward):
            counts[name] += 1
            return forward(images)

        monkeypatch.setattr(network, 'forward', counted)
    return counts


@pytest.mark.parametrize(
    ('options', 'adversary', 'number', 'expected', 'absent'),
    [
        ({}, True, 0, (6, 3), ''),
        ({}, False, 0, (6, 0), 'discrepancy'),
        (dict(adversary_start=2), True, 1, (6, 0), 'discrepancy'),
        (dict(adversary_start=2), True, 2, (6, 3), ''),
        (dict(adversarial_weight=0.0), True, 0, (6, 0), 'discrepancy'),
        (dict(contrast=OFF), True, 0, (3, 3), 'loss_contrast'),
        (dict(bn_statistics=OFF), True, 0, (6, 3), 'loss_bn'),
    ],
)
def test_what_is_left_out(make, monkeypatch, options, adversary, number, expected, absent):
    model = make(**options)
    counts = passes(model, monkeypatch)
    logs = synthesize(model, number, adversary).logs
    assert (counts['teacher'], counts['student']) == expected
    assert logs.keys() == {'loss_bn', 'loss_class', 'loss_contrast', 'discrepancy'} - {absent}


def test_without_contrast_no_bank_is_held(make, snapshot, changed):
    model = make(contrast=OFF)
    before = snapshot(model.head)
    synthesize(model)
    assert model.bank.rows.numel() == 0 and not changed(model.head, before)


def test_features(make, teacher):
    default = make()
    channels = [m.num_features for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]
    assert default.head.linear.in_features == sum(channels)
    assert default.head.hidden[0].out_features == sum(channels)
    assert default.bank.rows.shape == (24, 2 * sum(channels))
    names = ('backbone.stages.0', 'backbone.stages.2')
    for on, width in (('input', 2 + 4), ('output', 2 + 6)):  # stages of 2, 4, 6 channels
        model = make(feature_layers=names, feature_on=on)
        assert model.head.linear.in_features == width
        synthesize(model)
    assert not any('feature' in name for name, _ in default.named_modules())


def test_a_teacher_without_batch_norm(student):
    lenet = Classifier(
        dict(type='LeNet5', width=0.5),
        dict(in_channels=60, num_classes=5),
        input_shape=(1, 32, 32),
        mean=[78.0],
        std=[82.6],
    )
    teacher = build_teacher(lenet)
    with pytest.raises(UsageError, match=r'no BatchNorm.*model\.feature_layers'):
        CMI(teacher, student, **SMALL, bn_statistics=OFF)
    layers = [name for name, m in teacher.named_modules() if isinstance(m, nn.Conv2d)]
    model = CMI(teacher, student, **SMALL, feature_layers=layers[1:], bn_statistics=OFF)
    made = synthesize(model.train())
    assert set(made.logs) == {'loss_class', 'loss_contrast', 'discrepancy'}


def test_defaults_are_published(teacher, student):
    model = CMI(teacher, student)
    assert model.bn_statistics.loss_weight == model.class_weight == 1
    assert (model.adversarial_weight, model.contrast.loss_weight) == (0.5, 0.8)
    assert model.contrast.temperature == 0.1 and model.divergence.temperature == 20
    assert model.optimizer == dict(type='Adam', lr=1e-3, betas=(0.5, 0.999))
    assert (len(model.bank.rows), model.negatives) == (40960, 4096)
    assert (model.batch_size, model.iterations, model.rounds) == (256, 200, 1)
    assert model.head.linear.out_features == 256


def test_another_optimiser_of_images(make):
    """Betas are Adam's."""
    model = make(optimizer=dict(type='SGD', lr=0.1))
    assert model.optimizer == dict(type='SGD', lr=0.1)
    adam = dict(type='AdamW', betas=(0.9, 0.99))
    assert make(optimizer=adam).optimizer == dict(adam, lr=1e-3)
    assert make(optimizer=dict(type='AdamW')).optimizer['betas'] == (0.5, 0.999)
    assert synthesize(model).images.isfinite().all()


def test_a_round_after_a_validation_is_like_any_other(make):
    """Which leaves all networks in eval mode."""
    model = make()
    validated = copy.deepcopy(model).eval()
    assert torch.equal(synthesize(model).images, synthesize(validated).images)


def test_views_are_those_that_were_asked_for(teacher, student, monkeypatch):
    asked = []
    for name in ('crop_view', 'resized_crop_view'):
        path = f'mmdfkd.models.algorithms.cmi.{name}'
        monkeypatch.setattr(path, lambda network, *how: asked.append(how))
    CMI(teacher, student)
    CMI(teacher, student, padding=2, scale=(0.5, 0.9), flip=False)
    assert asked == [(4, True), ((0.25, 1.0), True), (2, False), ((0.5, 0.9), False)]


def test_the_bank_remembers_the_images_that_are_kept(make, monkeypatch):
    """The second of three iterations is the best."""
    model, losses = make(), iter([2.0, 1.0, 3.0])

    def synthesis_loss(images, targets, adversary):
        value = next(losses)
        features = torch.full((8, model.bank.rows.shape[1]), value)
        return value + 0 * images.sum() + 0 * model.head.linear.weight.sum(), features, {}

    monkeypatch.setattr(model, 'synthesis_loss', synthesis_loss)
    synthesize(model)
    assert len(model.bank) == 8 and (model.bank.rows[:8] == 1).all()


def test_mixed_precision(make):
    model = make()
    made = synthesize(model, optimizers=optimizers_of(model, wrapper=AutocastOptimWrapper))
    assert made.images.dtype == model.bank.rows.dtype == torch.float32
    assert all(value.dtype == torch.float32 and value.isfinite() for value in made.logs.values())


# Going on, several processes ------------------------------------------------------------------


def test_a_resumed_run_makes_the_same_images(make):
    """Head, its optimiser and the bank of features are in the checkpoint."""
    model = make(bank_size=20)
    optimizers = optimizers_of(model)
    for number in range(3):
        synthesize(model, number, optimizers=optimizers)
    resumed = make(bank_size=20)
    later = optimizers_of(resumed)
    resumed.load_state_dict(model.state_dict())
    later.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    assert resumed.bank.added == 24 and len(resumed.bank) == 20
    expected, found = (
        synthesize(m, 3, optimizers=o) for m, o in ((model, optimizers), (resumed, later))
    )
    assert torch.equal(expected.images, found.images)
    for key, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def _two_rounds(teacher, student):
    torch.manual_seed(3)
    model = CMI(teacher, MODELS.build(student), **SMALL).train()
    optimizers = optimizers_of(model)
    made = [synthesize(model, number, optimizers=optimizers).images for number in range(2)]
    return torch.cat(made), model.bank.rows


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
        (dict(bank_size=4), r'model\.bank_size is 4, and one round adds 8 .*multiple of 8'),
        (dict(feature_on='both'), r"model\.feature_on='both'.*'input', 'output'"),
        (dict(feature_layers=['backbone.layer1']), r"feature_layers.*no layer 'backbone\.layer1'"),
        (dict(iterations=0), r'model\.iterations is 0'),
        (dict(contrast=dict(temperature=0)), r'temperature=0, expected a number > 0'),
    ],
)
def test_usage_errors(make, options, words):
    with pytest.raises(UsageError, match=words):
        make(**options)
