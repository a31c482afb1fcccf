# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.modules import AdaptationMatrix
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-6, rtol=1e-5)


def build(weight, accuracy, diagonal='fixed'):
    matrix = AdaptationMatrix(len(weight), accuracy, diagonal)
    with torch.no_grad():
        matrix.weight.copy_(weight)
    return matrix


def test_by_hand():
    # Row 2: .1 softmax(1, -1) = .088080, .011920 around .9
    weight = torch.tensor([[0.0, 0], [1, -1], [0.5, 0]])
    expected = [[0.9, 0.05, 0.05], [0.088080, 0.9, 0.011920], [0.062246, 0.037754, 0.9]]
    torch.testing.assert_close(build(weight, 0.9)(), torch.tensor(expected), **CLOSE)


def test_published_matrices(golden):
    arrays = golden('dfnd')
    for name, accuracy, weight in (
        ('Q_zeros_cifar10', 0.9523, torch.zeros(10, 9)),
        ('Q_rand_cifar10', 0.9523, arrays['noise_param']),
        ('Q_rand_acc0p7774', 0.7774, arrays['noise_param']),
    ):
        torch.testing.assert_close(build(weight, accuracy)(), arrays[name], **CLOSE)


@pytest.mark.parametrize(('classes', 'accuracy', 'wrong'), [(10, 0.9523, 0.0053), (2, 0.8, 0.2)])
def test_before_training_errors_are_spread_evenly(classes, accuracy, wrong):
    matrix = AdaptationMatrix(classes, accuracy)()
    expected = torch.full((classes, classes), wrong).fill_diagonal_(accuracy)
    torch.testing.assert_close(matrix, expected, **CLOSE)
    torch.testing.assert_close(matrix.sum(0), torch.ones(classes))  # columns too


def test_a_thousand_classes():
    matrix = build(3 * torch.randn(1000, 999), 0.7774)()
    torch.testing.assert_close(matrix.sum(1), torch.ones(1000))
    torch.testing.assert_close(matrix.diagonal(), torch.full((1000,), 0.7774))
    # Entry by entry as in the definition, for one row in the middle.
    row = build(matrix[:, 1:], 0.7774)  # any weights
    expected = (1 - 0.7774) * row.weight[500].softmax(0)
    full = row()[500]
    torch.testing.assert_close(torch.cat([full[:500], full[501:]]), expected)


def test_a_constant_in_a_row_changes_nothing():
    weight = torch.randn(6, 5)
    shifted = weight + 10 * torch.randn(6, 1)
    torch.testing.assert_close(build(weight, 0.8)(), build(shifted, 0.8)(), **CLOSE)


def test_certainty_is_the_identity():
    matrix = build(torch.randn(4, 3), 1.0)
    assert torch.equal(matrix(), torch.eye(4))


@pytest.mark.parametrize('diagonal', ['fixed', 'learned'])
def test_logarithms_outlast_the_matrix(diagonal):
    matrix = build(torch.randn(4, 3), 0.8, diagonal)
    torch.testing.assert_close(matrix.log(), matrix().log())
    matrix = build(torch.tensor([[0.0, 200], [1, -1], [0.5, 0]]), 0.9, diagonal)
    assert matrix()[0, 1] == 0.0  # .1 e^-200
    assert matrix.log()[0, 1].item() == pytest.approx(-202.302585)
    matrix.log()[0, 1].backward()
    torch.testing.assert_close(matrix.weight.grad[0], torch.tensor([1.0, -1.0]))


def test_fixed_diagonal_learns_the_rest_only():
    matrix = build(torch.randn(4, 3), 0.8)
    assert [name for name, _ in matrix.named_parameters()] == ['weight']
    (matrix() * torch.randn(4, 4)).sum().backward()
    assert matrix.weight.grad.abs().sum() > 0
    # Rows keep their sum, so no gradient changes all weights of a row alike.
    torch.testing.assert_close(matrix.weight.grad.sum(1), torch.zeros(4), atol=1e-6, rtol=0)


def test_learned_diagonal_starts_at_the_accuracy_and_moves():
    matrix = build(torch.randn(4, 3), 0.8, 'learned')
    torch.testing.assert_close(matrix(), build(matrix.weight, 0.8)())
    with torch.no_grad():
        matrix.diagonal_shift.copy_(torch.tensor([0, 1.0, -1.0, 30.0]))
    # ln(.8/.2) = 1.386294; sigmoid(2.386294) = .915776, sigmoid(.386294) = .595390
    expected = torch.tensor([0.8, 0.915776, 0.595390, 1.0])
    torch.testing.assert_close(matrix().diagonal(), expected, **CLOSE)
    torch.testing.assert_close(matrix().sum(1), torch.ones(4))
    matrix.set_accuracy(0.9)
    assert matrix.diagonal_shift.tolist() == [0, 1, -1, 30]


@pytest.mark.parametrize('diagonal', ['fixed', 'learned'])
def test_gradient(diagonal):
    matrix = build(torch.randn(3, 2), 0.7, diagonal).double()
    parameters = tuple(matrix.parameters())
    coefficients = torch.randn(3, 3, dtype=torch.float64)

    def loss(*_):
        return (matrix() * coefficients).sum()

    assert torch.autograd.gradcheck(loss, parameters)


def test_what_a_checkpoint_holds():
    assert set(AdaptationMatrix(4, 0.8).state_dict()) == {'weight'}
    assert set(AdaptationMatrix(4, 0.8, 'learned').state_dict()) == {'weight', 'diagonal_shift'}


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(teacher_accuracy=0.0), r'teacher_accuracy is 0\.0.*share in \(0, 1\]\.'),
        (dict(teacher_accuracy=-0.5), r'teacher_accuracy is -0\.5'),
        (dict(teacher_accuracy=95.23), r'is 95\.23; .* in \(0, 1\], such as 0\.9523\.'),
        (dict(teacher_accuracy=float('nan')), r'teacher_accuracy is nan'),
        (dict(teacher_accuracy=1.0, diagonal='learned'), r"is 1, .*diagonal='learned'.*below 1"),
        (dict(teacher_accuracy=0.9, diagonal='free'), r"diagonal='free'.*'fixed', 'learned'"),
        (dict(teacher_accuracy=0.9, num_classes=1), r'1 classes; give 2 or more'),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(UsageError, match=named):
        MODELS.build(dict(type='AdaptationMatrix', **{'num_classes': 4, **settings}))
