# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.engine import RoleOptimWrapperConstructor
from mmdfkd.models.algorithms import DFAD
from mmdfkd.utils import UsageError

GENERATOR = dict(latent_size=6, widths=(4, 4, 4))

# Our names of the layers of the golden generator, see tests/data/README.md.
LAYERS = dict(
    linear='linear',
    bn0='norm',
    conv1='blocks.0.1',
    bn1='blocks.0.2',
    conv2='blocks.1.1',
    bn2='blocks.1.2',
    conv3='conv',
    bn3='head.norm',
)


# Against the published code -------------------------------------------------------------------


def test_losses_of_the_published_code(golden, teacher, student):
    arrays = golden('dfad')
    s, t = (arrays[f'loss.{name}_logit'].requires_grad_() for name in ('s', 't'))
    plain, log = DFAD(teacher, student), DFAD(teacher, student, adversary='neg_log')
    discrepancy = plain.imitation_loss(s, t)
    torch.testing.assert_close(discrepancy.detach(), arrays['loss.student_l1'])
    for model, name, gradient in (
        (plain, 'generator_neg_l1', 'd_generator_neg_l1'),
        (log, 'generator_neg_log_l1p1', 'd_generator_neg_log'),
    ):
        loss = model.adversarial(discrepancy)
        torch.testing.assert_close(loss.detach(), arrays[f'loss.{name}'])
        gradients = torch.autograd.grad(loss, (s, t), retain_graph=True)
        torch.testing.assert_close(gradients[0], arrays[f'loss.{gradient}_d_s'])
        torch.testing.assert_close(gradients[1], -gradients[0])  # through both alike
    assert arrays['loss.d_generator_neg_l1_d_t'].abs().min() > 0


def test_two_iterations_of_the_published_code(golden, toy_network):
    arrays = golden('dfad')
    model = DFAD(
        toy_network(4, arrays, 'step.teacher'),
        toy_network(3, arrays, 'step.student_before'),
        dict(latent_size=7, widths=(6, 6, 3)),
    ).double()
    state = model.generator.state_dict()
    for name, tensor in golden_state(arrays, 'step.generator_before').items():
        state[name].copy_(tensor)
    frozen = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    roles = dict(
        student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
        generator=dict(optimizer=dict(type='Adam', lr=1e-3)),
    )
    optimizers = RoleOptimWrapperConstructor(roles)(model)
    draws = [arrays[f'step.draws.{number:02}_randn'].flatten(1) for number in range(12)]
    model.train()
    close = dict(atol=1e-9, rtol=1e-9)
    for iteration in range(2):
        latent = torch.stack(draws[6 * iteration : 6 * iteration + 6], dim=1)
        logs = model.train_step(dict(latent=latent), optimizers)
        expected = arrays['step.logged_student_loss'][iteration]
        torch.testing.assert_close(logs['loss_student'], expected, **close)
        expected = -arrays['step.logged_generator_loss'][iteration]
        torch.testing.assert_close(logs['discrepancy'], expected, **close)
    after = dict(
        student=toy_network(3, arrays, 'step.student_after').state_dict(),
        generator=golden_state(arrays, 'step.generator_after'),
    )
    for role, tensors in after.items():
        for name, tensor in getattr(model, role).state_dict().items():
            torch.testing.assert_close(tensor, tensors[name], msg=f'{role}.{name}', **close)
    assert model.student.backbone.bn1.num_batches_tracked == 12
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name


def golden_state(arrays, group):
    """The golden generator's tensors under our names."""
    named = {}
    for key, tensor in arrays.items():
        if key.startswith(f'{group}.'):
            layer, tensor_name = key.removeprefix(f'{group}.').split('.')
            named[f'{LAYERS[layer]}.{tensor_name}'] = tensor
    return named


# By hand --------------------------------------------------------------------------------------


def test_discrepancy_by_hand(teacher, student):
    t = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    s = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    model = DFAD(teacher, student)
    discrepancy = model.imitation_loss(s, t)
    assert discrepancy.item() == 2.25  # (0 + 2 + 3 + 4) / 4
    assert model.adversarial(discrepancy).item() == -2.25
    log = DFAD(teacher, student, adversary='neg_log').adversarial(discrepancy)
    assert log.item() == pytest.approx(-1.178655)  # -ln 3.25


def test_the_logarithm_is_of_the_discrepancy_of_all_processes(teacher, student, monkeypatch):
    monkeypatch.setattr(
        'mmdfkd.models.algorithms.dfad.gather_batch',
        lambda mine: torch.cat([mine, torch.tensor([0.25])]),  # of another process
    )
    log = DFAD(teacher, student, adversary='neg_log').adversarial(torch.tensor(2.25))
    assert log.item() == pytest.approx(-0.810930)  # -ln 2.25


def test_unknown_adversary(teacher, student):
    with pytest.raises(UsageError, match=r"model\.adversary='log'.*'neg', 'neg_log'"):
        DFAD(teacher, student, adversary='log')


# Dense prediction -----------------------------------------------------------------------------


@pytest.mark.parametrize('adversary', ['neg', 'neg_log'])
def test_dense_logits(dense, make_latents, take_steps, snapshot, changed, adversary):
    model = DFAD(*dense, generator=GENERATOR, adversary=adversary)
    assert model.student(torch.zeros(2, 1, 16, 16)).shape == (2, 5, 16, 16)
    before = snapshot(model)
    logs = take_steps(model, make_latents(model, 4), lr=0.01)
    assert all(value.isfinite() for value in logs.values())
    assert {name.split('.')[0] for name in changed(model, before)} == {'student', 'generator'}


def test_teacher_without_batch_norm(make_latents, take_steps):
    """The papers' MNIST pair: DFAD asks the teacher's logits only."""
    model = DFAD(
        dict(checkpoint='mmdfkd://lenet5_digits'),
        dict(
            backbone=dict(type='LeNet5', width=0.5),
            head=dict(in_channels=60, num_classes=10, hidden_channels=[42]),
        ),
        GENERATOR,
        student_steps=1,
    )
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.student.modules())
    logs = take_steps(model, make_latents(model, 4), lr=0.01)
    assert logs['discrepancy'] > 0
