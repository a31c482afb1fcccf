# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What holds for every method whose images come out of a generator."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from mmdfkd.engine import ReplicatedModel, RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import DDAD, DFAD, ZSKT
from mmdfkd.models.classifiers import build_teacher
from mmdfkd.models.modules import statistics_kept
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

GENERATOR = dict(latent_size=6, widths=(4, 4, 4))

# Every switch of every method, and how many batches it shows the BatchNorm layers of student and
# generator in one iteration.
SWITCHES = dict(
    dfad=(DFAD, {}, 6, 6),
    dfad_steps=(DFAD, dict(student_steps=2), 3, 3),
    dfad_eval=(DFAD, dict(student_mode='eval'), 5, 6),
    dfad_log=(DFAD, dict(adversary='neg_log'), 6, 6),
    ddad=(DDAD, {}, 6, 6),
    ddad_log=(DDAD, dict(adversary='neg_log'), 6, 6),
    ddad_eval=(DDAD, dict(student_mode='eval'), 5, 6),
    ddad_bn_only=(DDAD, dict(adversarial_weight=0), 5, 6),
    ddad_no_bn=(DDAD, dict(bn_statistics=dict(loss_weight=0)), 6, 6),
    ddad_gauss=(DDAD, dict(bn_statistics=dict(form='gauss_kl')), 6, 6),
    ddad_kl=(DDAD, dict(discrepancy='kl'), 6, 6),
    ddad_js=(DDAD, dict(discrepancy='js'), 6, 6),
    ddad_priors=(
        DDAD,
        dict(
            priors=dict(
                one_hot=dict(type='OneHotLoss', loss_weight=0.05),
                balance=dict(type='ClassBalanceLoss', loss_weight=5.0),
                activation=dict(type='ActivationLoss', loss_weight=0.01),
            )
        ),
        6,
        6,
    ),
    zskt=(ZSKT, {}, 11, 2),
    zskt_fresh=(ZSKT, dict(fresh_latents=True), 11, 11),
    zskt_steps=(ZSKT, dict(student_steps=3), 4, 2),
    zskt_eval=(ZSKT, dict(student_mode='eval'), 10, 2),
    zskt_batchmean=(ZSKT, dict(reduction='batchmean', temperature=4.0), 11, 2),
    zskt_norm=(ZSKT, dict(attention=dict(form='norm')), 11, 2),
    zskt_no_attention=(ZSKT, dict(attention=dict(loss_weight=0)), 11, 2),
)


@pytest.fixture
def build(teacher, student):
    """Build a method by the name of one of its switches."""

    def go(switch, **changes):
        method, options, *_ = SWITCHES[switch]
        return method(teacher, student, generator=GENERATOR, **{**options, **changes})

    return go


def optimizers_of(model, lr=0.1):
    sgd = dict(type='SGD', lr=lr)
    return RoleOptimWrapperConstructor({r: dict(optimizer=sgd) for r in model.roles()})(model)


def batches_seen(network):
    """How many batches each BatchNorm layer has counted."""
    return {int(t) for name, t in network.state_dict().items() if 'num_batches' in name}


# Who moves, who receives gradient, who remembers ----------------------------------------------


@pytest.mark.parametrize('switch', SWITCHES)
def test_every_switch_trains_both_and_spares_the_teacher(
    build, make_latents, take_steps, snapshot, changed, switch
):
    model = build(switch)
    student, generator = snapshot(model.student), snapshot(model.generator)
    frozen = snapshot(model.teacher)
    _, _, of_student, of_generator = SWITCHES[switch]
    logs = take_steps(model, make_latents(model), make_latents(model), lr=0.01)
    assert all(value.isfinite() and not value.requires_grad for value in logs.values())
    assert changed(model.student, student) and changed(model.generator, generator)
    assert not changed(model.teacher, frozen)  # buffers and all, bit for bit
    assert not any(module.training for module in model.teacher.modules())
    assert batches_seen(model.student) == {2 * of_student}
    assert batches_seen(model.generator) == {2 * of_generator}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.student.parameters())
    assert model.student.training


@pytest.mark.parametrize('switch', ['dfad', 'ddad', 'ddad_bn_only', 'zskt', 'zskt_fresh'])
def test_only_those_who_step_hold_gradients(build, make_latents, switch):
    model = build(switch).train()
    optimizers = optimizers_of(model)
    phases = []

    def watch(role):
        def hook(*_):
            holders = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is not None}
            phases.append((role, holders))

        return hook

    for role in ('student', 'generator'):
        optimizers[role].optimizer.register_step_pre_hook(watch(role))
    model.train_step(make_latents(model), optimizers)
    assert all(holders == {role} for role, holders in phases)
    roles = [role for role, _ in phases]
    steps = getattr(model, 'student_steps', model.draws - 1)
    order = ['generator'] + ['student'] * steps
    assert roles == (order if isinstance(model, ZSKT) else order[::-1])


@pytest.mark.parametrize('switch', ['dfad', 'ddad', 'ddad_bn_only', 'ddad_js', 'zskt'])
def test_every_weight_of_the_generator_is_asked(build, make_latents, switch):
    model = build(switch).train()
    optimizers = optimizers_of(model)
    gradients = {}
    optimizers['generator'].optimizer.register_step_pre_hook(
        lambda *_: gradients.update({n: p.grad for n, p in model.generator.named_parameters()})
    )
    model.train_step(make_latents(model), optimizers)
    # A bias ahead of a BatchNorm has no effect; the last weight before the head's has one.
    weights = {name: g for name, g in gradients.items() if name.endswith('weight')}
    assert weights and all(g.abs().sum() > 0 for g in weights.values())


# The game -------------------------------------------------------------------------------------


def discrepancy(model, latent):
    """What the generator maximises, without a trace."""
    with torch.no_grad(), statistics_kept(model.student, model.generator):
        images = model.generator(latent)
        student, teacher = model.student(images), model.teacher(images)
        if isinstance(model, ZSKT):
            return model.divergence(student, teacher).item()
        return (student - teacher).abs().mean().item()


@pytest.mark.parametrize('switch', ['dfad', 'dfad_log', 'ddad_no_bn', 'zskt_no_attention'])
def test_a_generator_step_raises_the_discrepancy_and_student_steps_lower_it(
    build, make_latents, switch
):
    model = build(switch).train()
    optimizers = optimizers_of(model, lr=0.05)
    latent = make_latents(model, 32)['latent'][:, 0]
    before = discrepancy(model, latent)
    model.move_generator(latent, optimizers['generator'])
    after = discrepancy(model, latent)
    assert after > before
    for _ in range(3):
        if isinstance(model, ZSKT):
            model.imitate(latent, 1, optimizers['student'])
        else:
            model.imitate(latent, optimizers['student'])
    assert discrepancy(model, latent) < after


@pytest.mark.parametrize('switch', ['dfad', 'dfad_log', 'ddad_no_bn', 'ddad_js', 'zskt'])
def test_gradient_reaches_the_generator_through_the_teacher_too(build, make_latents, switch):
    """A student that ignores its input still leaves the generator a way to go."""
    model = build(switch).train()
    with torch.no_grad():
        model.student.head.fc.weight.zero_()
    optimizers, gradients = optimizers_of(model), []
    optimizers['generator'].optimizer.register_step_pre_hook(
        lambda *_: gradients.append(model.generator.conv.weight.grad.abs().sum())
    )
    model.move_generator(make_latents(model)['latent'][:, 0], optimizers['generator'])
    assert gradients[0] > 0


@pytest.mark.parametrize(
    ('switch', 'atol'), [('dfad', 0), ('dfad_log', 0), ('ddad_no_bn', 0), ('zskt', 1e-6)]
)
def test_a_student_equal_to_its_teacher_is_a_fixed_point(
    build, teacher, make_latents, take_steps, switch, atol
):
    """To rounding for the KL, whose gradient is a difference of sums."""
    twin = copy.deepcopy(teacher).requires_grad_(True)
    model = build(switch, student_mode='eval')
    model.student = twin
    twin.train = lambda mode=True: twin  # as in evaluation, like its teacher
    before = {name: p.clone() for name, p in model.named_parameters()}
    logs = take_steps(model, make_latents(model), lr=1e-3)
    for name in ('discrepancy', 'loss_student'):
        assert logs[name].item() == pytest.approx(0, abs=atol)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize('method', [DFAD, DDAD, ZSKT])
def test_the_teacher_is_no_student(method, teacher):
    with pytest.raises(UsageError, match=r'model\.student is the teacher itself.*no adversary'):
        method(teacher, teacher, generator=GENERATOR)


# Latents and samples --------------------------------------------------------------------------


@pytest.mark.parametrize('switch', ['dfad', 'ddad', 'zskt', 'zskt_fresh'])
def test_all_chance_comes_with_the_batch(build, make_latents, take_steps, switch):
    """The same latents give the same networks, whatever the generators of random numbers say."""
    states, start = [], build(switch)
    batch = make_latents(start)
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = copy.deepcopy(start)
        before = torch.get_rng_state()
        take_steps(model, batch)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize('switch', ['dfad', 'zskt', 'zskt_fresh', 'zskt_steps'])
def test_every_latent_is_used(build, make_latents, take_steps, switch):
    start = build(switch)
    batch = make_latents(start)
    students = []
    for draw in (None, *range(start.draws)):
        model, latent = copy.deepcopy(start), batch['latent'].clone()
        if draw is not None:
            latent[:, draw] *= -1
        take_steps(model, dict(latent=latent))
        students.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert not any(torch.equal(students[0], other) for other in students[1:])


def test_latent_shape(build):
    assert build('dfad').latent_shape == build('ddad').latent_shape == (6, 6)
    assert build('dfad_steps').latent_shape == (3, 6)
    assert build('zskt').latent_shape == (1, 6)
    assert build('zskt_fresh').latent_shape == (11, 6)


def test_looking_changes_nothing(build, make_latents, take_steps, snapshot, changed):
    model = build('dfad')
    take_steps(model, make_latents(model))
    before = snapshot(model)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    images, logits = model.sample(12)
    assert images.shape == (12, 1, 16, 16) and logits.shape == (12, 5)
    assert not images.requires_grad and torch.equal(logits, model.teacher(images))
    assert not changed(model, before)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(model.sample(12)[0], images)  # always the same latents
    assert not torch.equal(model.sample(12, seed=1)[0], images)
    # in parts of equal size: 4, 4 and 4 rather than 5, 5 and 2
    seen = []
    generate = model.generate
    model.generate = lambda latent: (seen.append(len(latent)), generate(latent))[1]
    first, all_logits = model.sample(12, batch_size=5, shown=7)
    assert seen == [4, 4, 4] and first.shape == (7, 1, 16, 16)
    torch.testing.assert_close(model.teacher(first), all_logits[:7])
    assert model.generator.training


# Sizes, channels, precision -------------------------------------------------------------------


def classifier(side, channels):
    return dict(
        type='Classifier',
        backbone=dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=channels),
        head=dict(in_channels=4, num_classes=3),
        input_shape=(channels, side, side),
        mean=[120.0] * channels,
        std=[60.0] * channels,
    )


@pytest.mark.parametrize('method', [DFAD, DDAD, ZSKT])
@pytest.mark.parametrize(('side', 'channels'), [(28, 1), (32, 3)])
def test_images_are_the_teachers(method, side, channels, make_latents, take_steps):
    config = classifier(side, channels)
    teacher = MODELS.build(config).eval().requires_grad_(False)
    small = {key: config[key] for key in ('type', 'backbone', 'head')}
    model = method(teacher, small, generator=GENERATOR)
    assert model.sample(3)[0].shape == (3, channels, side, side)
    assert take_steps(model, make_latents(model, 4))['discrepancy'].isfinite()


@pytest.mark.parametrize('method', [DFAD, DDAD, ZSKT])
def test_a_size_out_of_reach(method, teacher, student):
    with pytest.raises(UsageError, match=r'doubles its side 5 times.*16 x 16.*multiples of 32'):
        method(teacher, student, generator=dict(widths=(4,) * 6))


@pytest.mark.parametrize('switch', ['dfad', 'ddad', 'ddad_js', 'zskt'])
def test_mixed_precision_is_close_to_full(build, make_latents, take_steps, switch):
    logs, start = [], build(switch)
    batch = make_latents(start, 16)
    for half in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            logs.append(take_steps(copy.deepcopy(start), batch, lr=1e-4))
    for name, value in logs[0].items():
        torch.testing.assert_close(logs[1][name].float(), value, atol=0.05, rtol=0.1, msg=name)


@pytest.mark.parametrize('method', [DFAD, ZSKT])
def test_unknown_choices(method, teacher, student):
    with pytest.raises(UsageError, match=r"model\.student_mode='both'.*'train', 'eval'"):
        method(teacher, student, student_mode='both')
    with pytest.raises(UsageError, match=r'model\.student_steps is 0; give 1 or more'):
        method(teacher, student, student_steps=0)


@pytest.mark.parametrize('method', [DFAD, DDAD, ZSKT])
def test_registered(method, teacher, student):
    config = dict(type=method.__name__, teacher=teacher, student=student, generator=GENERATOR)
    model = MODELS.build(config)
    assert type(model) is method and model.method == method.__name__
    assert model.roles() == dict(student=[model.student], generator=[model.generator])
    names = {name.split('.')[0] for name in model.state_dict()}
    assert names == {'student', 'generator'}


# One process and two --------------------------------------------------------------------------

# Whose losses are no means over images: a logarithm, statistics, a clamp, an entropy of a mean.
GLOBAL = dict(
    dfad=(DFAD, 'lenet5', dict(adversary='neg_log')),
    ddad=(DDAD, 'resnet8', dict(adversary='neg_log', bn_statistics=dict(loss_weight=0.1))),
    ddad_js=(
        DDAD,
        'lenet5',
        dict(
            discrepancy='js',
            bn_statistics=dict(loss_weight=0),
            priors=dict(balance=dict(type='ClassBalanceLoss')),
        ),
    ),
    zskt=(ZSKT, 'lenet5', {}),
)


def two_iterations(case, rank=0, processes=1):
    """Logs, last gradients and weights; no BatchNorm sees how the batch is split."""
    method, teacher, options = GLOBAL[case]
    torch.manual_seed(0)
    student = dict(
        backbone=dict(type='LeNet5', width=0.5), head=dict(in_channels=60, num_classes=10)
    )
    teacher = build_teacher(dict(checkpoint=f'mmdfkd://{teacher}_digits'))
    if method is ZSKT:  # the last map is one pixel, which gives nothing to look at
        teacher.backbone.out_indices = student['backbone']['out_indices'] = (0, 1, 2)
    model = method(
        teacher,
        student,
        generator=dict(latent_size=6, widths=(4, 4, 4)),
        student_steps=2,
        **options,
    ).train()
    model.generator(torch.randn(32, 6))  # statistics to use in eval mode
    latents = torch.randn(2, 12, *model.latent_shape)[:, rank::processes]
    with torch.no_grad():  # the first process decides
        for parameter in model.student.parameters():
            parameter.add_(rank)
    wrapped = ReplicatedModel(model) if processes > 1 else model
    model.generator.eval()
    optimizers = optimizers_of(wrapped, lr=1e-3)
    gradients = {}
    for role, part in model.roles().items():
        optimizers[role].optimizer.register_step_pre_hook(
            lambda *_, role=role, part=part: gradients.update(
                (f'{role}.{n}', p.grad.clone()) for n, p in part[0].named_parameters()
            )
        )
    for latent in latents:
        logs = wrapped.train_step(dict(latent=latent), optimizers)
    return dict(logs=logs, gradients=gradients, weights=dict(model.state_dict()))


def _two_ranks(rank):
    return {case: two_iterations(case, rank, 2) for case in GLOBAL}


@pytest.fixture(scope='module')
def ranks(in_two_processes):
    return in_two_processes(_two_ranks)


@pytest.mark.parametrize('case', GLOBAL)
def test_two_processes_do_what_one_does(ranks, case):
    answers = [answer[case] for answer in ranks]
    expected = two_iterations(case)
    close = dict(atol=1e-6, rtol=1e-4)
    for name, value in expected['logs'].items():
        mean = sum(answer['logs'][name] for answer in answers) / 2
        torch.testing.assert_close(mean, value, msg=name, **close)
    for part in ('gradients', 'weights'):
        for name, value in expected[part].items():
            assert torch.equal(answers[0][part][name], answers[1][part][name]), name
            torch.testing.assert_close(answers[0][part][name], value, msg=name, **close)
    for name in ('student.backbone.layers.0.weight', 'generator.linear.weight'):
        assert expected['gradients'][name].abs().max() > 1e-5


def test_a_generator_makes_images_as_its_teacher_sees_them(teacher, student):
    """Black to white, 0 to 255, with mean 120 and deviation 60."""
    model = DFAD(teacher, student, dict(GENERATOR, head='sigmoid'))
    teacher, generator = model.teacher, model.generator
    unit = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    ends = (255 * unit - generator.head.mean) / generator.head.std
    assert ends.flatten().tolist() == [-2, 2.25]
    assert generator(torch.zeros(2, 6)).shape == (2, *teacher.input_shape)


@MODELS.register_module()
class WithoutLatentSize(nn.Linear):
    """A generator that does not say how long its latents are."""

    def __init__(self, input_shape, mean, std):
        super().__init__(2, 2)


def test_a_generator_says_how_long_its_latents_are(teacher, student):
    with pytest.raises(UsageError, match='WithoutLatentSize has no latent_size. Set self'):
        DFAD(teacher, student, generator=dict(type='WithoutLatentSize'))
