# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.losses import NoisyLabelLoss, noisy_nll
from mmdfkd.models.modules import AdaptationMatrix
from mmdfkd.registry import MODELS

CLOSE = dict(atol=1e-5, rtol=1e-5)


def random_matrix(classes, accuracy=0.9, scale=1.0):
    adaptation = AdaptationMatrix(classes, accuracy)
    with torch.no_grad():
        adaptation.weight.normal_(std=scale)
    return adaptation


def test_by_hand():
    """The worked example: r = softmax(s) Q, rows of Q are true classes."""
    adaptation = AdaptationMatrix(3, 0.9)
    with torch.no_grad():
        adaptation.weight.copy_(torch.tensor([[0.0, 0], [1, -1], [0.5, 0]]))
    student = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 2, 1]], requires_grad=True)
    labels = torch.tensor([0, 1, 2])
    log_matrix = adaptation.log()
    # Row 0 of r: (.550365, .227555, .222080)
    for label, probability in enumerate((0.550365, 0.227555, 0.222080)):
        loss = noisy_nll(student[:1], log_matrix, torch.tensor([label]))
        assert loss.item() == pytest.approx(-math.log(probability), abs=1e-5)
    loss = noisy_nll(student, log_matrix, labels)
    assert loss.item() == pytest.approx(1.185130, abs=1e-5)
    assert F.cross_entropy(student, labels).item() == pytest.approx(1.170165, abs=1e-5)
    loss.backward()
    expected = [[-0.004692, 0.004692], [0.008658, -0.008658], [0.017212, -0.017212]]
    torch.testing.assert_close(adaptation.weight.grad, torch.tensor(expected), atol=1e-6, rtol=0)
    expected = torch.tensor([-0.121998, 0.059341, 0.062657])
    torch.testing.assert_close(student.grad[0], expected, atol=1e-6, rtol=0)


def test_published_values(golden):
    arrays = golden('dfnd')
    student, labels = arrays['s_logits'], arrays['t_logits'].argmax(1)
    for name in ('zeros', 'rand'):
        expected = arrays[f'official_noisy_nll_{name}']
        log_matrix = arrays[f'Q_{name}_cifar10'].log()
        torch.testing.assert_close(noisy_nll(student, log_matrix, labels), expected, **CLOSE)
    adapted = arrays['student_adapted_rand']  # softmax(s) Q
    each = [noisy_nll(student[[b]], log_matrix, labels[[b]]) for b in range(len(labels))]
    expected = -adapted.gather(1, labels[:, None]).log().flatten()
    torch.testing.assert_close(torch.stack(each), expected, **CLOSE)


def test_the_matrix_is_not_transposed():
    # A sure student of class 0; images of class 0 are labelled 1 in 30 %, never the reverse.
    log_matrix = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).log()
    student = torch.tensor([[40.0, 0.0, 0.0]])
    loss = noisy_nll(student, log_matrix, torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(0.3))


def test_extremes():
    labels = torch.arange(10)
    log_matrix = AdaptationMatrix(10, 0.9523).log()
    uniform = torch.zeros(10, 10)
    assert noisy_nll(uniform, log_matrix, labels).item() == pytest.approx(math.log(10))
    perfect = 60 * torch.eye(10)
    assert noisy_nll(perfect, log_matrix, labels).item() == pytest.approx(0.048875, abs=1e-6)
    student = torch.randn(10, 10)
    plain = F.cross_entropy(student, labels)
    torch.testing.assert_close(noisy_nll(student, torch.eye(10).log(), labels), plain)
    closer = [
        (noisy_nll(student, AdaptationMatrix(10, a).log(), labels) - plain).abs().item()
        for a in (0.9, 0.99, 0.999, 0.9999)
    ]
    assert closer == sorted(closer, reverse=True) and closer[-1] < 1e-2


def test_a_constant_in_the_logits_changes_nothing():
    log_matrix, labels = random_matrix(5).log(), torch.tensor([0, 1, 4, 2])
    student = torch.randn(4, 5)
    shifted = noisy_nll(student + 50 * torch.randn(4, 1), log_matrix, labels)
    torch.testing.assert_close(shifted, noisy_nll(student, log_matrix, labels), **CLOSE)


def test_gradient():
    adaptation = random_matrix(4).double()
    student = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (6,))
    weight = torch.rand(6, dtype=torch.float64)

    def loss(student, _):
        return noisy_nll(student, adaptation.log(), labels, weight)

    assert torch.autograd.gradcheck(loss, (student, adaptation.weight))


@pytest.mark.parametrize('accuracy', [0.9523, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_nothing_overflows(accuracy, dtype):
    """A student that is certain and wrong, with a matrix whose small entries round to 0."""
    adaptation = random_matrix(5, accuracy, scale=100.0)
    student = (500 * torch.eye(5)).to(dtype).requires_grad_()
    labels = torch.tensor([1, 2, 3, 4, 0])
    loss = noisy_nll(student, adaptation.log(), labels)
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert student.grad.isfinite().all() and adaptation.weight.grad.isfinite().all()
    if accuracy == 1.0:  # plain cross-entropy, 500, whose gradient still pulls
        assert loss.item() == pytest.approx(500)
        assert student.grad.abs().max().item() == pytest.approx(0.2, rel=1e-2)


def test_weights_make_a_weighted_mean():
    log_matrix, student = random_matrix(5).log(), torch.randn(4, 5)
    labels = torch.tensor([0, 1, 4, 2])
    each = torch.stack([noisy_nll(student[[b]], log_matrix, labels[[b]]) for b in range(4)])
    weight = torch.tensor([1.0, 0.0, 3.0, 0.5])
    expected = (each * weight).sum() / 4.5
    torch.testing.assert_close(noisy_nll(student, log_matrix, labels, weight), expected)
    torch.testing.assert_close(noisy_nll(student, log_matrix, labels, 7 * weight), expected)
    kept = torch.tensor([1.0, 0.0, 1.0, 0.0])  # images that are left out play no part
    half = noisy_nll(student[::2], log_matrix, labels[::2])
    torch.testing.assert_close(noisy_nll(student, log_matrix, labels, kept), half)
    torch.testing.assert_close(noisy_nll(student, log_matrix, labels), each.mean())


def test_module_is_the_function():
    loss = MODELS.build(dict(type='NoisyLabelLoss', loss_weight=0.25))
    assert isinstance(loss, NoisyLabelLoss)
    arguments = torch.randn(4, 5), random_matrix(5).log(), torch.tensor([0, 1, 4, 2]), torch.rand(4)
    torch.testing.assert_close(loss(*arguments), 0.25 * noisy_nll(*arguments))


def test_it_recovers_how_labels_were_corrupted():
    """20,000 labels drawn from a known matrix; the student knows the truth."""
    generator = torch.Generator().manual_seed(3)
    classes, accuracy = 5, 0.8
    wrong = torch.rand(classes, classes - 1, generator=generator)
    truth = torch.zeros(classes, classes)
    truth[~torch.eye(classes, dtype=torch.bool)] = (0.2 * wrong / wrong.sum(1, True)).flatten()
    truth += accuracy * torch.eye(classes)
    true_classes = torch.randint(classes, (20_000,), generator=generator)
    labels = torch.multinomial(truth[true_classes], 1, generator=generator).flatten()
    student = 20.0 * F.one_hot(true_classes, classes)

    adaptation = AdaptationMatrix(classes, accuracy)
    optimizer = torch.optim.Adam(adaptation.parameters(), lr=0.05)
    losses = []
    for _ in range(300):
        loss = noisy_nll(student, adaptation.log(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # At first the cross-entropy of the even spread, .8 ln .8 + .2 ln .05; in the end the entropy.
    start = -(0.8 * math.log(0.8) + 0.2 * math.log(0.05))
    entropy = -(truth * truth.log()).sum(1)[true_classes].mean().item()
    assert losses[0] == pytest.approx(start, abs=0.02)
    assert losses[-1] == pytest.approx(entropy, abs=0.02) and losses[-1] < losses[0] - 0.01
    assert (adaptation() - truth).abs().max() < 0.01
