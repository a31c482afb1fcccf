# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import DFQ
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

SMALL = dict(latent_size=4, widths=(4, 4), head='sigmoid', bias=False)
ONLY_ADVERSARY = {name: dict(loss_weight=0) for name in ('bn_statistics', 'one_hot', 'balance')}


# Against the published code -------------------------------------------------------------------


def test_two_generator_steps_of_published_code(
    golden, toy_network, generation_state, snapshot, changed
):
    """The benchmark code of CMI, in double precision: student in eval mode, weights 1, 1, 1, 20."""
    arrays = golden('dfq')
    teacher = build_teacher(toy_network(4, arrays, 'step/teacher'))
    student = toy_network(3, arrays, 'step/student')
    generator = dict(latent_size=7, widths=(3, 3), head='sigmoid', bias=False)
    model = DFQ(teacher, student, generator).double().train()
    unit = torch.tensor([0.4914, 0.4822, 0.4465, 0.2023, 0.1994, 0.2010], dtype=torch.float64)
    mean, std = (255 * unit).view(2, 3, 1, 1)
    model.generator.head.mean, model.generator.head.std = mean, std  # were rounded to single
    model.generator.load_state_dict(generation_state(arrays, 'step/generator_before'))
    adam = dict(type='Adam', lr=1e-3, betas=(0.5, 0.999))
    config = dict(generator=dict(optimizer=adam), student=dict(optimizer=dict(type='SGD', lr=0.1)))
    optimizers = RoleOptimWrapperConstructor(config)(model)
    images = []
    model.generator.register_forward_hook(lambda *pass_: images.append(pass_[2].detach()))
    before = [snapshot(network) for network in (teacher, student)]

    logs = [
        model.move_generator(arrays[f'step/draws/0{step}_randn'], optimizers['generator'])
        for step in range(2)
    ]
    close = dict(atol=1e-9, rtol=0)
    torch.testing.assert_close(logs[0]['loss_bn'], arrays['step/it0_loss_bn'], **close)
    torch.testing.assert_close(logs[0]['loss_one_hot'], arrays['step/it0_loss_oh'], **close)
    expected = 20 * arrays['step/it0_loss_balance']
    torch.testing.assert_close(logs[0]['loss_balance'], expected, **close)
    torch.testing.assert_close(-logs[0]['discrepancy'], arrays['step/it0_loss_adv'], **close)
    total = sum(value for name, value in logs[0].items() if name.startswith('loss_'))
    expected = arrays['step/it0_total_bn1_oh1_adv1_balance20']
    torch.testing.assert_close(total - logs[0]['discrepancy'], expected, **close)
    unit_images = (images[1] * std + mean) / 255
    torch.testing.assert_close(unit_images, arrays['step/returned_images01'], **close)
    state = model.generator.state_dict()
    for name, expected in generation_state(arrays, 'step/generator_after').items():
        torch.testing.assert_close(state[name], expected, msg=name, **close)
    assert not changed(teacher, before[0]) and not changed(student, before[1])
    assert all(parameter.grad is None for parameter in student.parameters())


def test_adversary_of_published_code(golden, teacher, student):
    arrays = golden('dfq')
    for temperature in (1, 4):
        model = DFQ(teacher, student, SMALL, temperature=temperature)
        logits = [arrays[f'loss/{n}_logit'].clone().requires_grad_() for n in ('s', 't')]
        discrepancy = model.divergence(*logits)
        expected = arrays[f'loss/kldiv_batchmean_T{temperature}']
        torch.testing.assert_close(discrepancy.detach(), expected, atol=1e-9, rtol=0)
        (-discrepancy).backward()
        for logit, name in zip(logits, ('s', 't'), strict=True):
            expected = arrays[f'loss/d_neg_kldiv_d_{name}_T{temperature}']
            torch.testing.assert_close(logit.grad, expected, atol=1e-9, rtol=0)


# Who is trained -------------------------------------------------------------------------------


def batches_seen(network):
    """How often the network's batch norms have updated their statistics."""
    (count,) = {b.item() for n, b in network.named_buffers() if n.endswith('batches_tracked')}
    return count


@pytest.mark.parametrize(
    ('options', 'student_batches', 'generator_batches'),
    [
        ({}, 10, 1),
        (dict(student_steps=3), 3, 1),
        (dict(student_steps=3, student_mode='train'), 4, 1),
        (dict(student_steps=3, generator_mode='train'), 3, 4),
    ],
)
def test_whose_statistics_move(
    teacher, student, make_latents, take_steps, options, student_batches, generator_batches
):
    model = DFQ(teacher, student, SMALL, **options)
    assert model.latent_shape == (1 + options.get('student_steps', 10), 4)
    take_steps(model, make_latents(model))
    assert batches_seen(model.student) == student_batches
    assert batches_seen(model.generator) == generator_batches
    assert model.student.training and model.generator.training


def test_who_receives_gradient(teacher, student, make_latents, take_steps):
    model = DFQ(teacher, student, SMALL).train()
    with model.gradient_only_through(model.student, 'eval'):
        images = model.generator(make_latents(model)['latent'][:, 0])
        model.generator_loss(images)[0].backward()
    assert all(parameter.grad is not None for parameter in model.generator.parameters())
    others = [*teacher.parameters(), *model.student.parameters()]
    assert all(parameter.grad is None for parameter in others)
    assert all(parameter.requires_grad for parameter in model.student.parameters())
    assert not model.generate(torch.randn(2, 4)).requires_grad


def test_student_steps_leave_the_generator_alone(teacher, student, make_latents, snapshot, changed):
    model = DFQ(teacher, student, SMALL).train()
    config = {role: dict(optimizer=dict(type='SGD', lr=0.1)) for role in model.roles()}
    optimizers = RoleOptimWrapperConstructor(config)(model)
    before = snapshot(model.generator), snapshot(model.student)
    model.imitate(make_latents(model)['latent'][:, 0], optimizers['student'])
    assert not changed(model.generator, before[0])
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert changed(model.student, before[1]) == before[1].keys()


def test_samples_are_images_as_the_student_sees_them(
    teacher, student, make_latents, take_steps, snapshot, changed
):
    model = DFQ(teacher, student, SMALL)
    take_steps(model, make_latents(model))
    before = snapshot(model.generator)
    latent = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(model.generator).eval()(latent)
    assert torch.equal(model.sample(6)[0], expected)
    assert torch.equal(model.generate(latent), expected)
    assert not changed(model.generator, before) and model.generator.training


def test_teacher_is_bit_identical_after_ten_steps(
    teacher, student, make_latents, take_steps, snapshot, changed
):
    model = DFQ(teacher, student, SMALL, student_steps=2)
    before = snapshot(teacher)
    take_steps(model, *[make_latents(model) for _ in range(10)], lr=0.01)
    assert not changed(teacher, before)
    assert not any(module.training for module in teacher.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_generator_step_raises_the_discrepancy(teacher, student, make_latents):
    model = DFQ(teacher, student, SMALL, **ONLY_ADVERSARY).train()
    config = {role: dict(optimizer=dict(type='SGD', lr=5)) for role in model.roles()}
    optimizers = RoleOptimWrapperConstructor(config)(model)
    latent = make_latents(model, 32)['latent'][:, 0]
    logs = [model.move_generator(latent, optimizers['generator']) for _ in range(4)]
    values = [log['discrepancy'].item() for log in logs]
    assert values == sorted(values) and values[-1] > 1.02 * values[0]


def test_a_student_that_knows_everything_is_no_adversary(teacher, make_latents):
    """The discrepancy, and what the generator gets of it, is zero."""
    model = DFQ(teacher, teacher.config, SMALL, **ONLY_ADVERSARY).train()
    model.student.load_state_dict(teacher.state_dict())
    with model.gradient_only_through(model.student, 'eval'):
        loss, logs = model.generator_loss(model.generator(make_latents(model)['latent'][:, 0]))
        loss.backward()
    assert logs['discrepancy'].abs() < 1e-6
    assert all(p.grad.abs().max() < 1e-5 for p in model.generator.parameters())


# Warm-up --------------------------------------------------------------------------------------


def test_warm_up_moves_the_generator_only(
    teacher, student, make_latents, take_steps, snapshot, changed
):
    model = DFQ(teacher, student, SMALL, warmup_iterations=2, student_steps=2)
    before = snapshot(model.student)
    for _ in range(2):
        start = snapshot(model.generator)
        logs = take_steps(model, make_latents(model))
        assert logs.keys() == {'loss_bn', 'loss_one_hot', 'loss_balance'}  # no adversary
        assert changed(model.generator, start) and not changed(model.student, before)
    logs = take_steps(model, make_latents(model))
    assert logs.keys() >= {'discrepancy', 'loss_student'}
    assert changed(model.student, before)


def test_warm_up_is_not_repeated_after_resuming(teacher, student, make_latents, take_steps):
    model = DFQ(teacher, student, SMALL, warmup_iterations=2, student_steps=1)
    take_steps(model, *[make_latents(model) for _ in range(2)])
    resumed = DFQ(teacher, student, SMALL, warmup_iterations=2, student_steps=1)
    resumed.load_state_dict(model.state_dict())
    assert resumed.iteration == 2
    assert 'loss_student' in take_steps(resumed, make_latents(resumed))


# Every switch ---------------------------------------------------------------------------------

PAPER = dict(
    bn_statistics=dict(form='gauss_kl', loss_weight=0.01),
    one_hot=dict(form='entropy', loss_weight=0.01),
    balance=dict(loss_weight=0.01),
)


@pytest.mark.parametrize(
    'options',
    [
        {},
        PAPER,
        ONLY_ADVERSARY,
        dict(adversarial_weight=0),
        dict(temperature=4.0),
        dict(balance=dict(log_base=10)),
    ],
)
def test_switches(teacher, student, make_latents, take_steps, options):
    model = DFQ(teacher, student, SMALL, student_steps=1, **options)
    logs = take_steps(model, *[make_latents(model) for _ in range(2)], lr=0.01)
    assert all(value.isfinite() for value in logs.values())


def test_the_papers_form(golden, toy_network):
    """Gaussian KL, entropy and a common weight, on one batch of images."""
    arrays = golden('dfq')
    teacher = build_teacher(toy_network(4, arrays, 'bn/teacher'))
    student = toy_network(4, arrays, 'bn/teacher')
    model = DFQ(teacher, student, SMALL, **PAPER)
    _, logs = model.generator_loss(arrays['bn/x'], adversary=False)
    expected = 0.01 * arrays['paper_form/gauss_kl_per_layer_sum'].sum()
    torch.testing.assert_close(logs['loss_bn'], expected, atol=1e-9, rtol=0)
    prediction = teacher(arrays['bn/x']).softmax(1)
    entropy = torch.special.entr(prediction).sum(1).mean()
    torch.testing.assert_close(logs['loss_one_hot'], 0.01 * entropy)
    batch_entropy = torch.special.entr(prediction.mean(0)).sum()
    torch.testing.assert_close(logs['loss_balance'], -0.01 * batch_entropy)


def test_weight_of_the_adversary(teacher, student):
    model = DFQ(teacher, student, SMALL, adversarial_weight=0.25).eval()
    loss, logs = model.generator_loss(torch.randn(8, 1, 16, 16))
    discrepancy = logs.pop('discrepancy')
    assert discrepancy > 0
    torch.testing.assert_close(loss, sum(logs.values()) - 0.25 * discrepancy)


def test_defaults_are_those_of_the_benchmarks(teacher, student):
    model = DFQ(teacher, student, SMALL)
    assert model.bn_statistics.form == 'l2' and model.bn_statistics.loss_weight == 1
    assert model.one_hot.form == 'argmax' and model.one_hot.loss_weight == 1
    assert model.balance.loss_weight == 20
    assert model.balance(torch.zeros(2, 5)).item() == pytest.approx(-20 * 1.609438)  # ln 5
    assert model.divergence.temperature == 1


def test_mixed_precision(teacher, student, make_latents):
    model = DFQ(teacher, student, SMALL, student_steps=2).train()
    wrapper = dict(type=AutocastOptimWrapper, optimizer=dict(type='SGD', lr=0.01))
    optimizers = RoleOptimWrapperConstructor({role: wrapper for role in model.roles()})(model)
    logs = model.train_step(make_latents(model), optimizers)
    assert all(value.isfinite() for value in logs.values())
    assert logs['loss_student'].dtype == logs['loss_balance'].dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


# Several processes ----------------------------------------------------------------------------


def _objective(teacher, student, images, gain):
    """Gradient of a factor on the images, which stands for the generator."""
    model = DFQ(teacher, student, SMALL).eval()
    gain = gain.clone().requires_grad_()
    loss, logs = model.generator_loss(images * gain)
    loss.backward()
    return gain.grad, logs['loss_bn'].detach(), logs['loss_balance'].detach()


def _rank(rank, teacher, student, images, gain):
    return _objective(teacher, student, images.chunk(2)[rank], gain)


def test_two_processes_have_the_gradient_of_one(teacher, student, in_two_processes):
    student = MODELS.build(dict(student, input_shape=(1, 16, 16), mean=[120.0], std=[60.0]))
    images = torch.randn(8, 1, 16, 16) * torch.linspace(0.2, 3, 8).view(8, 1, 1, 1)
    gain = torch.tensor(1.5)
    expected = _objective(teacher, student, images, gain)
    ranks = in_two_processes(_rank, teacher, student, images, gain)
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, expected[0])
    for rank in ranks:
        torch.testing.assert_close(rank[1:], expected[1:])


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(student_mode='both'), r"model\.student_mode='both'.*'eval', 'train'"),
        (dict(generator_mode='both'), r"model\.generator_mode='both'.*'eval', 'train'"),
        (dict(student_steps=0), r'model\.student_steps is 0'),
        (dict(warmup_iterations=-1), r'model\.warmup_iterations is -1'),
        (dict(one_hot=dict(form='soft')), "form='soft'.*'argmax', 'entropy'"),
    ],
)
def test_usage_errors(teacher, student, options, words):
    with pytest.raises(UsageError, match=words):
        DFQ(teacher, student, SMALL, **options)


def test_teacher_as_its_own_adversary(teacher):
    with pytest.raises(UsageError, match=r'model\.student is the teacher itself'):
        DFQ(teacher, teacher, SMALL)


def test_a_teacher_without_batch_norm(make_latents, take_steps):
    lenet = Classifier(
        dict(type='LeNet5', width=0.5),
        dict(in_channels=60, num_classes=10),
        input_shape=(1, 32, 32),
        mean=[78.0],
        std=[82.6],
        name='plain LeNet',
    )
    teacher, student = build_teacher(lenet), dict(lenet.config)
    with pytest.raises(UsageError, match=r'plain LeNet has no BatchNorm.*weight of the BN loss'):
        DFQ(teacher, student, SMALL)
    model = DFQ(teacher, student, SMALL, bn_statistics=dict(loss_weight=0), student_steps=1)
    assert 'loss_bn' not in take_steps(model, make_latents(model), lr=0.01)
