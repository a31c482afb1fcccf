# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.algorithms import KD
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
