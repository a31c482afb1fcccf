# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import ZSKT
from mmdfkd.models.generators.generator import Generator
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

GENERATOR = dict(latent_size=6, widths=(4, 4, 4))
CLOSE = dict(atol=1e-9, rtol=1e-9)


@MODELS.register_module()
class GoldenOneBlock(Generator):
    """The generator of the golden step, see tests/data/README.md."""

    def __init__(self, input_shape, mean, std, latent_size, head):
        super().__init__(input_shape, mean, std, latent_size, 1, head)
        self.fc = nn.Linear(latent_size, 48)
        self.bn0 = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, latent):
        maps = F.interpolate(self.bn0(self.grow(self.fc, latent)), scale_factor=2)
        return self.head(self.conv(maps))


# Against the published code -------------------------------------------------------------------


@pytest.mark.parametrize('temperature', [1, 4])
def test_divergence_of_the_published_code(golden, teacher, student, temperature):
    arrays = golden('zskt')
    s, t = (arrays[f'loss.{name}_logit'].requires_grad_() for name in ('s', 't'))
    model = ZSKT(teacher, student, temperature=temperature)
    divergence = model.divergence(s, t)
    expected = arrays[f'loss.kl_mean_T{temperature}']
    torch.testing.assert_close(divergence.detach(), expected, **CLOSE)
    gradients = torch.autograd.grad(-divergence, (s, t))
    for gradient, name in zip(gradients, 'st', strict=True):
        expected = arrays[f'loss.d_generator_d_{name}_T{temperature}']
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(gradient, expected, **CLOSE)


def test_student_loss_of_the_published_code(golden, teacher, student):
    arrays = golden('zskt')
    maps = [[arrays[f'at.{n}_act{i}'] for i in range(3)] for n in 'st']
    model = ZSKT(teacher, student)
    attention = model.attention(*maps)
    torch.testing.assert_close(
        attention, 250 * sum(arrays[f'at.diff{i}'] for i in range(3)), **CLOSE
    )
    total = model.divergence(arrays['loss.s_logit'], arrays['loss.t_logit']) + attention
    torch.testing.assert_close(total, arrays['at.student_total_beta250_T1'], **CLOSE)


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_two_iterations_of_the_published_code(golden, toy_network, double_precision):
    arrays = golden('zskt')
    model = ZSKT(
        toy_network(4, arrays, 'step.teacher'),
        toy_network(3, arrays, 'step.student_before'),
        dict(type='GoldenOneBlock', latent_size=7),
        student_steps=3,
    )
    state = model.generator.state_dict()
    for key, tensor in group(arrays, 'step.generator_before').items():
        state[key].copy_(tensor)
    clip = dict(clip_grad=dict(max_norm=5))
    roles = dict(
        student=dict(optimizer=dict(type='Adam', lr=2e-3), **clip),
        generator=dict(optimizer=dict(type='Adam', lr=1e-3), **clip),
    )
    optimizers = RoleOptimWrapperConstructor(roles)(model)
    norms = []
    for role in roles:
        clip_func = optimizers[role].clip_func

        def watched(*args, clip_func=clip_func, **kwargs):
            norms.append(clip_func(*args, **kwargs))
            return norms[-1]

        optimizers[role].clip_func = watched
    for iteration in range(2):
        latent = arrays[f'step.draws.{iteration:02}_randn'][:, None]
        model.train().train_step(dict(latent=latent), optimizers)
        for role in roles:  # cosine over two iterations
            optimizers[role].param_groups[0]['lr'] /= 2
    torch.testing.assert_close(torch.stack(norms), arrays['step.grad_norms_before_clip'], **CLOSE)
    after = toy_network(3, arrays, 'step.student_after').state_dict()
    for name, tensor in model.student.state_dict().items():
        torch.testing.assert_close(tensor, after[name], msg=name, **CLOSE)
    assert model.student.backbone.bn1.num_batches_tracked == 8
    # The code makes the same images anew for each of the three steps; its generator counts them.
    expected = group(arrays, 'step.generator_after')
    assert expected['bn0.num_batches_tracked'] == 8
    assert model.generator.bn0.num_batches_tracked == 4
    for name, parameter in model.generator.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], msg=name, **CLOSE)


def group(arrays, prefix):
    """Tensors of a group under our names of the generator's layers."""
    names = {k: k.removeprefix(f'{prefix}.') for k in arrays if k.startswith(f'{prefix}.')}
    return {n.replace('bn.', 'head.norm.'): arrays[k] for k, n in names.items()}


# By hand --------------------------------------------------------------------------------------


def test_divergence_has_the_teacher_for_reference(teacher, student):
    # p_t = (3/4, 1/4), p_s = (1/2, 1/2): KL(t || s) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812
    # (the other way round it is 0.143841)
    s, t = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
    model = ZSKT(teacher, student)
    assert model.divergence(s, t).item() == pytest.approx(0.130812 / 2, abs=1e-6)
    model.reduction = 'batchmean'
    assert model.divergence(s, t).item() == pytest.approx(0.130812, abs=1e-6)
    assert model.divergence(s.repeat(3, 1), t.repeat(3, 1)).item() == pytest.approx(
        0.130812, abs=1e-6
    )


# What belongs to whom -------------------------------------------------------------------------


def test_student_learns_from_the_images_of_the_moved_generator(
    teacher, student, make_latents, monkeypatch
):
    """Same latents, made once after the generator's step; one pass of the teacher serves all."""
    model = ZSKT(teacher, student, GENERATOR, student_steps=4).train()
    seen = []
    monkeypatch.setattr(
        model.student.backbone,
        'forward',
        lambda x, f=model.student.backbone.forward: seen.append(x) or f(x),
    )
    passes = []
    model.teacher.backbone.register_forward_hook(lambda *_: passes.append(1))
    adam = {role: dict(optimizer=dict(type='Adam', lr=1e-2)) for role in model.roles()}
    optimizers = RoleOptimWrapperConstructor(adam)(model)
    batch = make_latents(model)
    model.train_step(batch, optimizers)
    assert len(seen) == 5 and len(passes) == 2
    assert seen[0].requires_grad and not seen[1].requires_grad
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(seen[1], images) for images in seen[2:])
    torch.testing.assert_close(seen[1], model.generate(batch['latent'][:, 0]))


def test_attention_is_no_business_of_the_generator(teacher, student, make_latents, take_steps):
    generators, students = [], []
    for weight in (0.0, 250.0):
        torch.manual_seed(7)
        model = ZSKT(teacher, student, GENERATOR, attention=dict(loss_weight=weight))
        torch.manual_seed(8)
        logs = take_steps(model, make_latents(model), lr=1e-3)
        assert ('loss_attention' in logs) == (weight > 0)
        generators.append(torch.cat([p.flatten() for p in model.generator.parameters()]))
        students.append(torch.cat([p.flatten() for p in model.student.parameters()]))
    assert torch.equal(*generators) and not torch.equal(*students)


def test_logs_add_up(teacher, student, make_latents, take_steps):
    model = ZSKT(teacher, student, GENERATOR)
    logs = take_steps(model, make_latents(model), lr=1e-3)
    assert set(logs) == {'discrepancy', 'loss_student', 'loss_kl', 'loss_attention'}
    torch.testing.assert_close(logs['loss_student'], logs['loss_kl'] + logs['loss_attention'])


def test_wide_networks_are_compared_ahead_of_their_last_batch_norm(make_latents, take_steps):
    """The three groups' sums, as in the published code; the pooled map is not among them."""

    def network(factor):
        backbone = dict(
            type='WideResNet',
            depth=10,
            widen_factor=factor,
            out_indices=(0, 1, 2),
            raw_last=True,
        )
        head = dict(in_channels=64 * factor, num_classes=4)
        return dict(type='Classifier', backbone=backbone, head=head)

    inputs = dict(input_shape=(3, 8, 8), mean=[120.0] * 3, std=[60.0] * 3)
    teacher = MODELS.build({**network(2), **inputs})
    model = ZSKT(teacher, network(1), GENERATOR, student_steps=1, attention=dict(indices=(0, 1, 2)))
    shapes = [tuple(m.shape[1:]) for m in teacher.extract(torch.zeros(1, 3, 8, 8)).maps]
    assert shapes == [(32, 8, 8), (64, 4, 4), (128, 2, 2), (128, 2, 2)]
    assert take_steps(model, make_latents(model, 4), lr=1e-3)['loss_attention'] > 0


# Defaults and refusals ------------------------------------------------------------------------


def test_defaults_are_the_published_ones(teacher, student):
    model = ZSKT(teacher, student)
    assert (model.student_steps, model.draws, model.temperature) == (10, 1, 1.0)
    assert (model.reduction, model.student_mode) == ('mean', 'train')
    assert (model.attention.loss_weight, model.attention.form) == (250.0, 'mean')
    assert (model.generator.latent_size, model.generator.head.kind) == (100, 'bn')
    config = dict(latent_size=3, head='tanh_bn', widths=(2, 2))
    generator = ZSKT(teacher, student, config).generator
    assert (generator.latent_size, generator.head.kind) == (3, 'tanh_bn')


def test_maps_must_come_in_pairs(teacher, student):
    student['backbone']['out_indices'] = (0, 1, 2)
    with pytest.raises(UsageError, match=r'3 and the teacher 1.*out_indices'):
        ZSKT(teacher, student)
    ZSKT(teacher, student, attention=dict(loss_weight=0))
    ZSKT(teacher, student, attention=dict(indices=[0]))


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        (dict(reduction='sum'), r"model\.reduction='sum'.*'mean', 'batchmean'"),
        (dict(temperature=0), r'model\.temperature is 0; give a number above 0'),
        (dict(attention=dict(form='max')), r"form='max'.*'norm'"),
        (dict(attention=dict(type='HintLoss')), r'HintLoss: .*weights of its own, which nobody'),
        (dict(attention=dict(type='JSDivergence')), r'JSDivergence: here a loss compares maps'),
    ],
)
def test_unknown_choices(teacher, student, wrong, named):
    with pytest.raises(UsageError, match=named):
        ZSKT(teacher, student, **wrong)
