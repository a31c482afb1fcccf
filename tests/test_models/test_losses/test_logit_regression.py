# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import LogitRegressionLoss, logit_regression
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

# differences (-1, 1, 0) and (0, 1, -2): absolute values add up to 5, squares to 2 + 5
TEACHER = torch.tensor([[2.0, 1, 0], [0, 0, 3]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 2, 0], [0, 1, 1]], dtype=torch.float64)


@pytest.mark.parametrize(('form', 'expected'), [('l1', 5 / 6), ('mse', 7 / 6), ('sum_l2', 7 / 2)])
def test_hand_worked_values(form, expected):
    loss = logit_regression(STUDENT, TEACHER, form)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert logit_regression(TEACHER, TEACHER, form).item() == 0
    order = torch.tensor([1, 0])
    torch.testing.assert_close(logit_regression(STUDENT[order], TEACHER[order], form), loss)
    # no shift invariance, unlike a divergence of probabilities
    assert logit_regression(STUDENT + 1, TEACHER, form) != loss


def test_gradient():
    # sum_l2: 2 (s - t) / N
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    logit_regression(student, teacher, 'sum_l2').backward()
    assert student.grad.tolist() == [[-1, 1, 0], [0, 1, -2]]
    assert torch.equal(teacher.grad, -student.grad)
    for form in ('l1', 'mse', 'sum_l2'):
        loss = LogitRegressionLoss(form)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, TEACHER + 0.3), student)


def test_half_precision_does_not_overflow():
    # 300^2 = 90,000 exceeds the largest half (65,504)
    logits = torch.full((2, 3), 300.0, dtype=torch.float16)
    assert logit_regression(logits, 0 * logits).item() == pytest.approx(90_000)


def test_module_is_the_weighted_function():
    module = MODELS.build(dict(type='LogitRegressionLoss', form='sum_l2', loss_weight=0.03))
    assert module(STUDENT, TEACHER).item() == pytest.approx(0.105)
    with pytest.raises(UsageError, match="form='l2' is not known"):
        LogitRegressionLoss('l2')
