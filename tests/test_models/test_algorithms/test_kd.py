# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.algorithms import KD
from mmdfkd.models.classifiers import Features, map_shapes
from mmdfkd.models.losses import attention_transfer, hint_regression
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


def expected_losses(model, batch, temperature):
    """Hinton's formula, written out: T^2 sum p_t (log p_t - log p_s) and the cross-entropy."""
    images = model.data_preprocessor(batch)['inputs']
    with torch.no_grad():
        teacher = (model.teacher(images) / temperature).softmax(1)
        logits = model.student.train()(images)
    log_ratio = teacher.log() - (logits / temperature).log_softmax(1)
    return temperature**2 * (teacher * log_ratio).sum(1).mean(), logits


@pytest.mark.parametrize(('alpha', 'temperature'), [(0.9, 4.0), (0.25, 1.0), (1.0, 2.0)])
def test_loss_is_the_formula(teacher, student, make_batch, take_steps, alpha, temperature):
    batch = make_batch(labelled=True)
    model = KD(teacher, student, temperature=temperature, alpha=alpha)
    divergence, logits = expected_losses(model, batch, temperature)
    entropy = F.cross_entropy(logits, batch['label'])
    logs = take_steps(model, batch)
    torch.testing.assert_close(logs['loss_kd'], divergence)
    torch.testing.assert_close(logs['loss'], alpha * divergence + (1 - alpha) * entropy)
    assert ('loss_ce' in logs) == (alpha < 1)
    assert not any(value.requires_grad for value in logs.values())


def test_teacher_does_not_move_and_student_follows_it(
    teacher, student, make_batch, take_steps, snapshot, changed
):
    model = KD(teacher, student, alpha=1.0)
    before = snapshot(teacher)
    batch = make_batch(32)
    first = take_steps(model, batch)
    last = take_steps(model, *[batch] * 30)
    assert last['loss'] < 0.5 * first['loss']
    assert not changed(model.teacher, before)


def test_alpha_one_reads_no_label(teacher, student, make_batch, take_steps):
    results = []
    for labelled in (False, True):
        torch.manual_seed(3)
        model = KD(teacher, student, alpha=1.0)
        batch = make_batch(labelled=labelled)
        take_steps(model, batch)
        results.append(model.student.head.fc.weight)
    assert torch.equal(*results)


def test_labels_are_asked_for(teacher, student, make_batch, take_steps):
    with pytest.raises(UsageError, match=r'model\.alpha=0\.9 .* weight of 0\.1.*model\.alpha=1\.0'):
        take_steps(KD(teacher, student), make_batch())


@pytest.mark.parametrize('alpha', [-0.1, 1.5])
def test_alpha_out_of_range(teacher, student, alpha):
    with pytest.raises(UsageError, match=r'model\.alpha is .*\[0, 1\]'):
        KD(teacher, student, alpha=alpha)


def test_registered(teacher, student):
    model = MODELS.build(dict(type='KD', teacher=teacher, student=student))
    assert model.method == 'KD' and model.roles() == dict(student=[model.student])


# The forms in use --------------------------------------------------------------------------------

WORKED = dict(teacher=[[2.0, 1, 0], [0, 0, 3]], student=[[1.0, 2, 0], [0, 1, 1]])


@pytest.mark.parametrize(
    ('weights', 'temperature', 'expected'),
    [
        (dict(alpha=0.9), 4.0, 0.663984),  # (1 - alpha) CE + alpha T^2 KL
        (dict(alpha=0.1, ce_weight=1.0), 3.0, 1.196472),  # CE + lambda T^2 KL
        (dict(alpha=0.0), 4.0, 1.134800),  # labels alone
        (dict(alpha=2.0, ce_weight=0.0), 1.0, 2 * 0.480596),
        # an old default divided by K too: weight 2 * 0.9 * T^2 is 2 * 0.9 / 3 here
        (dict(alpha=2 * 0.9 / 3, ce_weight=0.1), 4.0, 0.480483),
    ],
)
def test_worked_example(teacher, student, make_batch, take_steps, weights, temperature, expected):
    model = KD(teacher, student, temperature=temperature, **weights)
    for network, logits in zip((model.teacher, model.student), WORKED.values(), strict=True):
        values = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        network.extract = lambda images, values=values: Features((), None, None, values)
    batch = dict(make_batch(2), label=torch.tensor([0, 2]))
    assert take_steps(model, batch)['loss'].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('wrong', [dict(alpha=-1, ce_weight=1.0), dict(ce_weight=-0.1)])
def test_weights_out_of_range(teacher, student, wrong):
    with pytest.raises(UsageError, match=r'model\.alpha is .* model\.ce_weight .*negative'):
        KD(teacher, student, **wrong)


# Losses on maps ----------------------------------------------------------------------------------

MAPS = dict(out_indices=(0, 1, 2))


@pytest.fixture
def pair(teacher, student):
    """The pair with three maps each: 16, 8 and 4 pixels."""
    teacher.backbone.out_indices = (0, 1, 2)
    return teacher, {**student, 'backbone': {**student['backbone'], **MAPS}}


def test_without_them_a_step_is_hintons_bit_by_bit(teacher, student, make_batch, take_steps):
    """The same arithmetic, written out beside it."""
    torch.manual_seed(3)
    model = KD(teacher, student)
    torch.manual_seed(3)
    twin = KD(teacher, student).student.train()
    batches = [make_batch(labelled=True) for _ in range(3)]
    take_steps(model, *batches)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for batch in batches:
        images = (batch['inputs'].float() - 120.0) / 60
        logits = twin(images)
        with torch.no_grad():
            target = (teacher(images) / 4).log_softmax(1)
        kl = F.kl_div((logits / 4).log_softmax(1), target, log_target=True, reduction='batchmean')
        loss = 0.9 * (kl * 16) + (1 - 0.9) * F.cross_entropy(logits, batch['label'])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.student.state_dict()[name]), name


def test_attention_and_hint_are_added(pair, make_batch, take_steps):
    teacher, student = pair
    batch = make_batch(labelled=True)
    losses = dict(
        attention=dict(type='AttentionTransferLoss', loss_weight=1000.0),
        hint=dict(type='HintLoss', indices=[1], loss_weight=0.5),
    )
    model = KD(teacher, student, feature_losses=losses)
    images = (batch['inputs'] - 120.0) / 60
    with torch.no_grad():
        maps = model.student.train().extract(images).maps
        truth = teacher.extract(images).maps
        attention = sum(attention_transfer(s, t) for s, t in zip(maps, truth, strict=True))
        regressor = model.feature_losses['hint'].regressors['1']
        hint = hint_regression(regressor(maps[1]), truth[1])
    assert map_shapes(model.student) == [(2, 16, 16), (2, 8, 8), (4, 4, 4)]
    logs = take_steps(model, batch)
    torch.testing.assert_close(logs['loss_attention'], 1000 * attention)
    torch.testing.assert_close(logs['loss_hint'], 0.5 * hint)
    total = 0.9 * logs['loss_kd'] + 0.1 * logs['loss_ce'] + logs['loss_attention']
    torch.testing.assert_close(logs['loss'], total + logs['loss_hint'])


def test_a_regressor_is_trained_and_left_behind(pair, make_batch, take_steps, snapshot, changed):
    teacher, student = pair
    torch.manual_seed(3)
    model = KD(teacher, student, feature_losses=dict(hint=dict(type='HintLoss', indices=[1])))
    torch.manual_seed(3)
    plain = KD(teacher, student)
    assert not changed(plain.student, model.student.state_dict())  # the student starts alike
    before, frozen = snapshot(model.feature_losses), snapshot(teacher)
    take_steps(model, make_batch(labelled=True))
    name = 'hint.regressors.1'
    assert changed(model.feature_losses, before) == {f'{name}.weight', f'{name}.bias'}
    assert not changed(teacher, frozen)
    assert model.student.state_dict().keys() == plain.student.state_dict().keys()
    assert f'feature_losses.{name}.weight' in model.state_dict()  # for resuming
    assert not plain.feature_losses


def test_first_stage_of_fitnets(pair, make_batch, take_steps, snapshot, changed):
    """The hint alone trains the student up to its layer, and nothing above."""
    teacher, student = pair
    hint = dict(type='HintLoss', indices=[1])
    model = KD(teacher, student, alpha=0.0, ce_weight=0.0, feature_losses=dict(hint=hint))
    parameters = {n: p.detach().clone() for n, p in model.student.named_parameters()}
    batch = make_batch()
    first = take_steps(model, batch, weight_decay=1e-2)['loss_hint']
    last = take_steps(model, *[batch] * 20, weight_decay=1e-2)
    assert last['loss_hint'] < 0.9 * first and last.keys() == {'loss', 'loss_hint'}
    moved = {n for n, p in model.student.named_parameters() if not torch.equal(p, parameters[n])}
    below = {n for n in parameters if not n.startswith(('backbone.stages.2', 'head'))}
    assert moved == below


def test_losses_on_maps_are_checked(pair, teacher, student):
    with pytest.raises(UsageError, match='KLDivergence.*compares no feature maps'):
        KD(teacher, student, feature_losses=dict(kl=dict(type='KLDivergence')))
    attention = dict(attention=dict(type='AttentionTransferLoss'))
    with pytest.raises(UsageError, match='student returns 1 and the teacher 3 feature maps'):
        KD(teacher, student, feature_losses=attention)
    KD(*pair, feature_losses=attention)


def test_something_must_be_learnt(teacher, student):
    with pytest.raises(UsageError, match=r'alpha and model\.ce_weight are 0.*feature_losses'):
        KD(teacher, student, alpha=0, ce_weight=0)
