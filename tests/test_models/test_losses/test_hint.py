# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.losses import HintLoss, hint_regression
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

STUDENT = torch.tensor([[[[1.0, 2], [3, 4]]]])
TEACHER = torch.tensor([[[[2.0, 3], [6, 8]], [[0, 0], [-2, -2]]]])


def fitted(student_shapes, teacher_shapes, **arguments):
    loss = MODELS.build(dict(type='HintLoss', **arguments))
    loss.fit_maps(student_shapes, teacher_shapes)
    return loss


# Regressor with weights 2, -1 and biases 0, 1: channels (2, 4, 6, 8) and (0, -1, -2, -3), squared
# differences 0 + 1 + 0 + 0 and 0 + 1 + 0 + 1 = 3
@pytest.mark.parametrize(('form', 'expected'), [('mse', 3 / 8), ('half_sum', 1.5)])
def test_hand_worked_value(form, expected):
    loss = fitted([(1, 2, 2)], [(2, 2, 2)], form=form, loss_weight=2.0)
    with torch.no_grad():
        loss.regressors['0'].weight.copy_(torch.tensor([2.0, -1]).view(2, 1, 1, 1))
        loss.regressors['0'].bias.copy_(torch.tensor([0.0, 1]))
    assert loss([STUDENT], [TEACHER]).item() == pytest.approx(2 * expected)
    # the batch is averaged, its order does not matter
    twice = loss([torch.cat([STUDENT, 0 * STUDENT])], [torch.cat([TEACHER, TEACHER])])
    swapped = loss([torch.cat([0 * STUDENT, STUDENT])], [torch.cat([TEACHER, TEACHER])])
    alone = loss([0 * STUDENT], [TEACHER])
    torch.testing.assert_close(twice, (alone + 2 * expected) / 2)
    torch.testing.assert_close(twice, swapped)


def test_gradcheck_and_who_receives_gradient():
    torch.manual_seed(0)
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    for form in ('mse', 'half_sum'):
        assert torch.autograd.gradcheck(
            lambda s, form=form: hint_regression(s, teacher, form), student
        )
    assert hint_regression(student, student).item() == 0
    hint_regression(student, teacher).backward()
    assert teacher.grad is None
    loss, map_ = fitted([(1, 2, 2)], [(2, 2, 2)]), STUDENT.clone().requires_grad_()
    loss([map_], [TEACHER]).backward()
    assert map_.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_half_precision_does_not_overflow():
    big = torch.full((2, 1, 2, 2), 300.0, dtype=torch.float16)
    assert hint_regression(big, 0 * big).item() == pytest.approx(90_000)


@pytest.mark.parametrize(
    ('student', 'teacher', 'kernel', 'expected'),
    [
        ((3, 8, 8), (5, 8, 8), 1, (1, 1)),
        ((3, 8, 8), (5, 8, 8), 3, (3, 3)),
        ((3, 8, 8), (5, 6, 6), 1, (3, 3)),  # the paper: 8 - 6 + 1, no padding
        ((3, 8, 7), (5, 4, 7), 1, (5, 1)),
    ],
)
def test_regressors_lead_from_map_to_map(student, teacher, kernel, expected):
    loss = fitted([student], [teacher], kernel_size=kernel)
    (conv,) = loss.regressors.values()
    assert isinstance(conv, nn.Conv2d) and conv.kernel_size == expected
    assert conv(torch.randn(2, *student)).shape == (2, *teacher)
    assert loss([torch.randn(2, *student)], [torch.randn(2, *teacher)]).isfinite()


def test_a_regressor_for_each_chosen_pair():
    shapes = [(2, 8, 8), (4, 4, 4), (6, 2, 2)]
    assert len(fitted(shapes, shapes).regressors) == 3
    loss = fitted(shapes, shapes, indices=[1])
    assert {name: tuple(p.shape) for name, p in loss.named_parameters()} == {
        'regressors.1.weight': (4, 4, 1, 1),
        'regressors.1.bias': (4,),
    }


def test_usage_errors():
    with pytest.raises(UsageError, match='kernel_size=2, expected an odd'):
        HintLoss(kernel_size=2)
    with pytest.raises(UsageError, match="form='sum' is not known"):
        HintLoss(form='sum')
    with pytest.raises(UsageError, match="map 0 of the student is 4x4, the teacher's 8x8"):
        fitted([(2, 4, 4)], [(2, 8, 8)])
    with pytest.raises(UsageError, match='HintLoss compares maps in pairs.*student returns 1'):
        fitted([(2, 4, 4)], [(2, 8, 8)] * 2)
