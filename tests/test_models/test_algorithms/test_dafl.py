# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.engine import AutocastOptimWrapper, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import DAFL
from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.utils import UsageError

SMALL = dict(latent_size=4, widths=(4, 4))


# Against the published code -------------------------------------------------------------------


def lenet(width=1):
    channels = int(120 * width)
    return Classifier(
        dict(type='LeNet5', width=width),
        dict(in_channels=channels, num_classes=10, hidden_channels=[int(84 * width)]),
        input_shape=(1, 32, 32),
        mean=[33.33],
        std=[78.57],
    )


def test_three_iterations_of_the_published_loop(golden, fill_by_hash):
    """One backward of ``L_oh + 5 L_ie + 0.1 L_a + KL``, then both optimisers."""
    arrays = golden('dafl')
    teacher = build_teacher(fill_by_hash(lenet(), 100))
    student = fill_by_hash(lenet(0.5), 200)
    model = DAFL(teacher, student, dict(latent_size=8, eps=0.8)).train()
    fill_by_hash(model.generator)
    model.double()  # filled in single precision, run in double
    config = dict(
        student=dict(optimizer=dict(type='Adam', lr=2e-3)),
        generator=dict(optimizer=dict(type='Adam', lr=1e-3)),
    )
    optimizers = RoleOptimWrapperConstructor(config)(model)
    seen = []
    hook = student.register_forward_pre_hook(lambda _, images: seen.append(images[0].clone()))
    close = dict(atol=1e-12, rtol=1e-12)
    for latent, expected in zip(arrays['trace_z'], arrays['trace_losses_f64'], strict=True):
        logs = model.train_step(dict(latent=latent.double()[:, None]), optimizers)
        one_hot, entropy, activation, divergence, _ = expected
        torch.testing.assert_close(logs['loss_one_hot'], one_hot, **close)
        torch.testing.assert_close(logs['loss_balance'], 5 * entropy, **close)
        torch.testing.assert_close(logs['loss_activation'], 0.1 * activation, **close)
        torch.testing.assert_close(logs['loss_student'], divergence, **close)
    hook.remove()
    torch.testing.assert_close(seen[0][0], arrays['trace_step0_fake_img0_f64'], **close)
    features = teacher.extract(seen[0])  # the 120 activations after the last convolution
    torch.testing.assert_close(features.vector, arrays['trace_step0_teacher_feats_f64'], **close)
    torch.testing.assert_close(features.logits, arrays['trace_step0_teacher_logits_f64'], **close)
    logits = student.eval()(arrays['trace_eval_x'].double())
    expected = arrays['trace_student_eval_logits_f64']
    torch.testing.assert_close(logits, expected, **close)


@pytest.mark.parametrize(
    ('weights', 'recipe'),
    [
        ({}, 'mnist'),
        (dict(one_hot=0.05, activation=0.01), 'cifar10'),
        (dict(one_hot=0.5, balance=20), 'cifar100'),
    ],
)
def test_objectives_of_the_recipes(golden, teacher, student, weights, recipe):
    arrays = golden('dafl')
    losses = {name: dict(loss_weight=weight) for name, weight in weights.items()}
    model = DAFL(teacher, student, SMALL, **losses)
    features = teacher.extract(torch.randn(1, 1, 16, 16))._replace(
        vector=arrays['t_feats'], logits=arrays['t_logits']
    )
    loss, _ = model.generator_loss(features)
    torch.testing.assert_close(loss, arrays[f'official_gen_total_{recipe}'], atol=1e-5, rtol=1e-5)


def test_students_loss(golden, teacher, student):
    arrays = golden('dafl')
    logits = arrays['s_logits'].clone().requires_grad_()
    loss = DAFL(teacher, student, SMALL).divergence(logits, arrays['t_logits'])
    loss.backward()
    close = dict(atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss.detach(), arrays['official_kd'], **close)
    torch.testing.assert_close(logits.grad, arrays['grad_kd_s_logits'], **close)
    # with a temperature, times its square: 0.429864, 0.497055 and 0.494251 worked by hand
    teacher_logits = torch.tensor([[2.0, 0, -1], [0, 1, 0], [1, 1, 3]])
    student_logits = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 2, 1]])
    for temperature, expected in ((1, 0.429864), (4, 0.497055), (6, 0.494251)):
        model = DAFL(teacher, student, SMALL, temperature=temperature)
        loss = model.divergence(student_logits, teacher_logits)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


# Who is trained, who is asked -----------------------------------------------------------------


@pytest.fixture
def count_passes():
    """Count the forward passes of a network, and keep its images."""

    def count(network):
        seen = []
        network.backbone.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
        return seen

    return count


@pytest.mark.parametrize(
    ('options', 'draws', 'teacher_passes', 'student_passes'),
    [
        ({}, 1, 1, 1),
        (dict(student_batch='fresh'), 2, 2, 1),
        (dict(student_steps=3), 3, 3, 3),
        (dict(student_batch='fresh', student_steps=3), 4, 4, 3),
    ],
)
def test_passes_per_step(
    teacher,
    student,
    make_latents,
    take_steps,
    count_passes,
    options,
    draws,
    teacher_passes,
    student_passes,
):
    model = DAFL(teacher, student, SMALL, **options)
    assert model.latent_shape == (draws, 4)
    passes = [count_passes(network) for network in (model.teacher, model.student)]
    take_steps(model, make_latents(model))
    assert [len(seen) for seen in passes] == [teacher_passes, student_passes]
    tracked = {b.item() for n, b in model.student.named_buffers() if n.endswith('batches_tracked')}
    assert tracked == {student_passes}
    assert not any(images.requires_grad for images in passes[1])


def test_shared_batch_is_the_generators_own(teacher, student, make_latents, take_steps):
    """Images made before the generator moved; with a fresh batch, by the one that has moved."""
    for mode in ('shared', 'fresh'):
        model = DAFL(teacher, student, SMALL, student_batch=mode).train()
        batch = make_latents(model)
        seen = []
        model.student.register_forward_pre_hook(lambda _, images, seen=seen: seen.append(images[0]))
        before = model.generator(batch['latent'][:, -1])
        take_steps(model, batch, lr=1.0)
        after = model.generator(batch['latent'][:, -1])
        expected, other = (before, after) if mode == 'shared' else (after, before)
        torch.testing.assert_close(seen[0], expected.detach())
        assert (seen[0] - other).abs().max() > 1e-2


def test_who_receives_gradient(teacher, student, make_latents):
    model = DAFL(teacher, student, SMALL).train()
    images = model.generator(make_latents(model)['latent'][:, 0])
    loss, _ = model.generator_loss(model.teacher.extract(images))
    loss.backward()
    gradients = {name: p.grad for name, p in model.generator.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert gradients['linear.weight'].abs().max() > 0
    others = [*model.teacher.parameters(), *model.student.parameters()]
    assert all(parameter.grad is None for parameter in others)


def test_student_has_no_say_in_the_images(teacher, student, make_latents, take_steps, snapshot):
    """The generator's path is the same whoever learns from it."""
    states = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = DAFL(teacher, student, SMALL)
        torch.manual_seed(seed)
        for parameter in model.student.parameters():
            parameter.data.normal_()
        torch.manual_seed(3)
        take_steps(model, *[make_latents(model) for _ in range(3)])
        states.append(snapshot(model.generator))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_teacher_is_bit_identical_after_ten_steps(
    teacher, student, make_latents, take_steps, snapshot, changed
):
    model = DAFL(teacher, student, SMALL)
    before = [snapshot(network) for network in (teacher, model.student, model.generator)]
    take_steps(model, *[make_latents(model) for _ in range(10)])
    assert not changed(teacher, before[0])
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert changed(model.student, before[1]) == before[1].keys()
    still = before[2].keys() - changed(model.generator, before[2])
    assert not still - {'blocks.0.1.bias'}  # in front of a batch norm: no gradient but rounding


def test_a_step_lowers_the_generators_objective(teacher, student, make_latents, take_steps):
    model = DAFL(teacher, student, SMALL)
    batch = make_latents(model, 32)
    logs = [take_steps(model, batch, lr=0.02) for _ in range(4)]
    terms = 'loss_one_hot', 'loss_activation', 'loss_balance'
    losses = [sum(log[name].item() for name in terms) for log in logs]
    assert losses == sorted(losses, reverse=True)


def test_a_teacher_sure_of_one_class_breaks_nothing(teacher, student, make_latents, take_steps):
    """The published entropy is NaN on such a batch."""
    teacher.head.fc.bias.data[2] += 1e4
    model = DAFL(teacher, student, SMALL)
    logs = take_steps(model, *[make_latents(model) for _ in range(2)])
    assert logs['loss_balance'] == logs['loss_one_hot'] == 0
    assert all(value.isfinite() for value in logs.values())
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize('cast', [['student', 'generator'], ['student'], ['generator']])
def test_mixed_precision(teacher, student, make_latents, cast):
    model = DAFL(teacher, student, SMALL, student_steps=2).train()
    config = {role: dict(optimizer=dict(type='SGD', lr=0.01)) for role in model.roles()}
    for role in cast:
        config[role]['type'] = AutocastOptimWrapper
    optimizers = RoleOptimWrapperConstructor(config)(model)
    logs = model.train_step(make_latents(model), optimizers)
    assert all(value.isfinite() for value in logs.values())
    assert logs['loss_student'].dtype == logs['loss_balance'].dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


# Several processes ----------------------------------------------------------------------------


def _objective(teacher, images, gain):
    """Loss and gradient of a factor on the images, which stands for the generator."""
    model = DAFL(teacher, dict(teacher.config), SMALL)
    gain = gain.clone().requires_grad_()
    loss, logs = model.generator_loss(teacher.extract(images * gain))
    loss.backward()
    return gain.grad, logs['loss_balance'].detach()


def _rank(rank, teacher, images, gain):
    return _objective(teacher, images.chunk(2)[rank], gain)


def test_two_processes_have_the_gradient_of_one(teacher, in_two_processes):
    images = torch.randn(8, 1, 16, 16) * torch.linspace(0.2, 3, 8).view(8, 1, 1, 1)
    gain = torch.tensor(1.5)
    expected, balance = _objective(teacher, images, gain)
    ranks = in_two_processes(_rank, teacher, images, gain)
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, expected)
    assert all(torch.allclose(rank[1], balance) for rank in ranks)


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(student_batch='own'), r"model\.student_batch='own'.*'shared', 'fresh'"),
        (dict(student_steps=0), r'model\.student_steps is 0'),
        (dict(temperature=0), 'temperature=0'),
        (dict(generator=dict(widths=(4, 4, 4, 4, 4, 4))), '16 x 16.*multiples of 32'),
    ],
)
def test_usage_errors(teacher, student, options, words):
    with pytest.raises(UsageError, match=words):
        DAFL(teacher, student, **{'generator': SMALL, **options})


def test_teacher_as_its_own_student(teacher):
    with pytest.raises(UsageError, match=r'model\.student is the teacher itself'):
        DAFL(teacher, teacher, SMALL)
