# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.algorithms import DDAD, DFAD
from mmdfkd.models.algorithms.ddad import by_place
from mmdfkd.models.modules import record_batch_statistics
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

GENERATOR = dict(latent_size=6, widths=(4, 4, 4))


@MODELS.register_module()
class OneNormBackbone(torch.nn.Module):
    """A BatchNorm layer and nothing else, so that its input is the image."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(2)

    def forward(self, images):
        return (self.norm(images),)


@pytest.fixture
def card():
    """A teacher that remembers mean (1, -1) and variance (4, 1), and images it shall judge."""
    inputs = dict(input_shape=(2, 1, 2), mean=[0.0] * 2, std=[1.0] * 2)
    network = dict(
        type='Classifier',
        backbone=dict(type='OneNormBackbone'),
        head=dict(in_channels=2, num_classes=2),
    )
    teacher = MODELS.build({**network, **inputs}).eval().requires_grad_(False)
    teacher.backbone.norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    teacher.backbone.norm.running_var.copy_(torch.tensor([4.0, 1.0]))
    images = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]], [[[4.0, 6.0]], [[-1.0, 3.0]]]])
    return teacher, network, images


def built(card, **options):
    teacher, student, _ = card
    return DDAD(teacher, student, generator=dict(latent_size=3, widths=(2,)), **options)


# By hand --------------------------------------------------------------------------------------


def test_loss_by_hand(card, monkeypatch):
    """Batch mean (3, 1) and biased variance (5, 2): L_BN = sqrt 2 + sqrt 8; D = 2.25 is given."""
    model = built(card)
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    extract = model.teacher.extract
    monkeypatch.setattr(
        model.teacher, 'extract', lambda images: extract(images)._replace(logits=logits[0])
    )
    monkeypatch.setattr(model.student, 'forward', lambda images: logits[1])
    loss, logs = model.generator_loss(card[2])
    assert logs['loss_bn'].item() == pytest.approx(0.01 * 4.242641, abs=1e-7)
    assert logs['discrepancy'].item() == 2.25
    assert loss.item() == pytest.approx(-0.182574, abs=1e-6)  # 0.01 L_BN - 0.1 D
    model.adversary = 'neg_log'
    expected = 0.01 * 4.242641 - 0.1 * 1.178655  # ln 3.25
    assert model.generator_loss(card[2])[0].item() == pytest.approx(expected, abs=1e-6)


def test_matching_statistics_cost_nothing_and_pull_nowhere(card):
    model = built(card, adversarial_weight=0)
    images = torch.tensor([[[[-1.0, 3.0]], [[-2.0, 0.0]]]], requires_grad=True)
    loss, logs = model.generator_loss(images)
    assert loss.item() == 0 and set(logs) == {'loss_bn'}
    loss.backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


@pytest.mark.parametrize('shape', [(6, 5), (6, 5, 3, 2)])
def test_alternatives_of_the_published_code(teacher, student, shape):
    """KL at T = 4 times 16 for the student alone; JS at T = 3 for both. Places are samples."""
    s, t = torch.randn(shape), torch.randn(shape)
    distance = (s - t).abs().mean()
    log_s, p_t = (s / 4).log_softmax(1), (t / 4).softmax(1)
    kl = 16 * (p_t * (p_t.log() - log_s)).sum(1).mean()
    p, q = (s / 3).softmax(1), (t / 3).softmax(1)
    m = ((p + q) / 2).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    js = ((m * (m / p).log()).sum(1) + (m * (m / q).log()).sum(1)).mean() / 2
    expected = dict(l1=(distance, distance), kl=(kl, distance), js=(js, js))
    for name, (of_student, of_generator) in expected.items():
        model = DDAD(teacher, student, discrepancy=name)
        torch.testing.assert_close(model.imitation_loss(s, t), of_student)
        torch.testing.assert_close(model.distance(s, t), of_generator)


def test_places_become_rows():
    assert by_place(torch.randn(4, 3)).shape == (4, 3)
    dense = torch.randn(2, 3, 4, 5)
    rows = by_place(dense)
    assert rows.shape == (40, 3)
    assert torch.equal(rows[1 * 20 + 2 * 5 + 3], dense[1, :, 2, 3])


def test_priors_are_weighed_and_added(teacher, student):
    torch.manual_seed(3)
    plain = DDAD(teacher, student, generator=GENERATOR)
    model = copy.deepcopy(plain)
    priors = dict(
        one_hot=dict(type='OneHotLoss', loss_weight=0.5),
        balance=dict(type='ClassBalanceLoss', loss_weight=5.0),
        activation=dict(type='ActivationLoss', loss_weight=0.1),
    )
    model.priors = DDAD(teacher, student, generator=GENERATOR, priors=priors).priors
    images = torch.randn(8, 1, 16, 16)
    features = teacher.extract(images)
    mean = features.logits.softmax(1).mean(0)
    expected = dict(
        loss_one_hot=0.5 * F.cross_entropy(features.logits, features.logits.argmax(1)),
        loss_balance=5.0 * (mean * mean.log10()).sum(),
        loss_activation=-0.1 * features.vector.abs().mean(),
    )
    loss, logs = model.generator_loss(images)
    for name, value in expected.items():
        torch.testing.assert_close(logs[name], value)
    torch.testing.assert_close(loss, plain.generator_loss(images)[0] + sum(expected.values()))


# Special cases --------------------------------------------------------------------------------


@pytest.mark.parametrize('adversary', ['neg', 'neg_log'])
def test_without_statistics_it_is_dfad(teacher, student, make_latents, take_steps, adversary):
    """Weights (0, 1): the same networks and logs, bit for bit."""
    results = []
    for method, options in (
        (DFAD, {}),
        (DDAD, dict(bn_statistics=dict(loss_weight=0), adversarial_weight=1.0)),
    ):
        torch.manual_seed(7)
        model = method(teacher, student, generator=GENERATOR, adversary=adversary, **options)
        batches = [make_latents(model) for _ in range(2)]
        logs = take_steps(model, *batches)
        results.append((logs, model.state_dict()))
    for first, second in zip(*results, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_statistics_alone_do_not_ask_the_student(teacher, student, make_latents, take_steps):
    model = DDAD(teacher, student, generator=GENERATOR, adversarial_weight=0)
    generators = []
    for factor in (1.0, 5.0):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            twin.student.head.fc.weight.mul_(factor)
        torch.manual_seed(7)
        logs = take_steps(twin, make_latents(twin))
        assert set(logs) == {'loss_student', 'loss_bn'}
        generators.append(torch.cat([p.flatten() for p in twin.generator.parameters()]))
    assert torch.equal(*generators)


def test_statistics_pull_images_to_the_data(teacher, student, make_latents, take_steps):
    model = DDAD(teacher, student, generator=GENERATOR, adversarial_weight=0, student_steps=1)
    batch = make_latents(model, 32)
    losses = [take_steps(model, batch, lr=0.5)['loss_bn'] for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


def test_nothing_is_recorded_outside_the_generators_step(
    teacher, student, make_latents, take_steps
):
    model = DDAD(teacher, student, generator=GENERATOR)
    take_steps(model, make_latents(model))
    assert not any(module._forward_pre_hooks for module in teacher.modules())
    with record_batch_statistics(teacher) as statistics:
        teacher(torch.randn(4, 1, 16, 16))
    layers = [m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(statistics) == len(layers)


# Dense prediction -----------------------------------------------------------------------------


@pytest.mark.parametrize('discrepancy', ['l1', 'kl', 'js'])
def test_dense_logits(dense, make_latents, take_steps, snapshot, changed, discrepancy):
    model = DDAD(*dense, generator=GENERATOR, discrepancy=discrepancy)
    assert model.student(torch.zeros(2, 1, 16, 16)).shape == (2, 5, 16, 16)
    before = snapshot(model)
    logs = take_steps(model, make_latents(model, 4), lr=0.01)
    assert all(value.isfinite() and value > 0 for value in logs.values())
    assert {name.split('.')[0] for name in changed(model, before)} == {'student', 'generator'}


# Refusals -------------------------------------------------------------------------------------


def test_a_teacher_without_batch_norm(make_latents, take_steps):
    teacher = dict(checkpoint='mmdfkd://lenet5_digits')
    student = dict(
        backbone=dict(type='LeNet5', width=0.5), head=dict(in_channels=60, num_classes=10)
    )
    message = r'LeNet5 has no BatchNorm.*\(model\.teacher\).*weight of the BN loss to 0.*DFAD'
    with pytest.raises(UsageError, match=message):
        DDAD(teacher, student, generator=GENERATOR)
    model = DDAD(teacher, student, generator=GENERATOR, bn_statistics=dict(loss_weight=0))
    assert take_steps(model, make_latents(model, 4), lr=0.01)['discrepancy'] > 0


def test_a_generator_with_nothing_to_learn(teacher, student):
    with pytest.raises(UsageError, match=r'both 0.*nothing to learn.*Give one of them a weight'):
        DDAD(teacher, student, bn_statistics=dict(loss_weight=0), adversarial_weight=0)


def test_priors_alone_are_something_to_learn(teacher, student, make_latents, take_steps):
    model = DDAD(
        teacher,
        student,
        generator=GENERATOR,
        bn_statistics=dict(loss_weight=0),
        adversarial_weight=0,
        priors=dict(balance=dict(type='ClassBalanceLoss')),
    )
    before = model.generator.conv.weight.clone()
    logs = take_steps(model, make_latents(model))
    assert 'loss_balance' in logs and not torch.equal(model.generator.conv.weight, before)


@pytest.mark.parametrize('name', ['bn', 'student', 'train', 'training', 'a.b', ''])
def test_a_prior_has_a_name_of_its_own(teacher, student, name):
    with pytest.raises(UsageError, match=r'model\.priors has a term'):
        DDAD(teacher, student, priors={name: dict(type='OneHotLoss')})


def test_a_prior_has_a_type(teacher, student):
    with pytest.raises(
        UsageError, match=r"model\.priors\.balance names no type.*'ClassBalanceLoss'"
    ):
        DDAD(teacher, student, priors=dict(balance=dict(loss_weight=5.0)))


def test_unknown_discrepancy(teacher, student):
    with pytest.raises(UsageError, match=r"model\.discrepancy='l2'.*'l1', 'kl', 'js'"):
        DDAD(teacher, student, discrepancy='l2')
