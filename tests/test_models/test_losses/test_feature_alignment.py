# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import (
    WeightedFeatureAlignmentLoss,
    alignment_weight,
    weighted_feature_alignment,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-4)


def test_weight_of_known_distances():
    # d = 0, 1, 2, 5 = |(3, 4)|: sigmoid(d) = 0.5, 0.73106, 0.88080, 0.99331
    student = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, -2.0], [3.0, 4.0]])
    teacher = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    weight = alignment_weight(student, teacher)
    assert weight.tolist() == pytest.approx([0.5, 0.73106, 0.88080, 0.99331], abs=1e-5)


def test_paper_weight_on_probabilities():
    # softmax gives (1, 0) and (0, 1): d = sqrt 2, 1 - sigmoid(1.414214) = 0.195571; equal: 0.5
    student = torch.tensor([[100.0, 0.0], [0.3, -0.2]])
    teacher = torch.tensor([[0.0, 100.0], [5.3, 4.8]])
    weight = alignment_weight(student, teacher, 'one_minus_sigmoid', 'probs')
    assert weight.tolist() == pytest.approx([0.195571, 0.5], abs=1e-5)


def test_weight_matches_published_code(kd3_golden):
    student, teacher = kd3_golden['wfa_train_logit_s'], kd3_golden['wfa_logit_t']
    weight = alignment_weight(student, teacher)
    torch.testing.assert_close(weight, kd3_golden['wfa_weight'], **CLOSE)
    paper = alignment_weight(student, teacher, 'one_minus_sigmoid', 'probs')
    torch.testing.assert_close(paper, kd3_golden['derived_eq9_weight_probs'], **CLOSE)


def test_weight_none_is_ones_and_no_weight_has_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    assert alignment_weight(logits, logits, 'none').tolist() == [1.0, 1.0, 1.0]
    for form, space in [('sigmoid', 'logits'), ('one_minus_sigmoid', 'probs'), ('none', 'probs')]:
        assert not alignment_weight(logits, logits * 2, form, space).requires_grad


def test_hand_worked_loss():
    # image 0: differences 1, 1, 1, 1 -> mean square 1; image 1: 3, 1, 1, 1 -> 12 / 4 = 3
    # loss = (0.5 * 1 + 0.25 * 3) / 2 = 0.625
    student = torch.ones(2, 1, 2, 2)
    student[1, 0, 0, 0] = 3
    loss = weighted_feature_alignment(student, torch.zeros(2, 1, 2, 2), torch.tensor([0.5, 0.25]))
    assert loss.item() == pytest.approx(0.625)
    vectors = weighted_feature_alignment(
        student.flatten(1), torch.zeros(2, 4), torch.tensor([0.5, 0.25])
    )
    assert vectors.item() == pytest.approx(0.625)


def test_loss_matches_published_code(kd3_golden):
    loss = weighted_feature_alignment(
        kd3_golden['wfa_train_trans_s'], kd3_golden['wfa_train_trans_t'], kd3_golden['wfa_weight']
    )
    torch.testing.assert_close(loss, kd3_golden['wfa_loss'], **CLOSE)


def test_gradcheck_and_who_receives_gradient():
    torch.manual_seed(0)
    student = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: weighted_feature_alignment(s, teacher, weight), student
    )
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    module = WeightedFeatureAlignmentLoss()
    loss = module(student, teacher, module.weight(logits, logits.detach() + 1))
    loss.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None and logits.grad is None


def test_invariances():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    weight = torch.rand(4)
    loss = weighted_feature_alignment(student, teacher, weight)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        weighted_feature_alignment(student[order], teacher[order], weight[order]), loss
    )
    torch.testing.assert_close(
        weighted_feature_alignment(student.to(memory_format=torch.channels_last), teacher, weight),
        loss,
    )
    unweighted = weighted_feature_alignment(student, teacher, torch.ones(4))
    torch.testing.assert_close(unweighted, torch.nn.functional.mse_loss(student, teacher))
    assert weighted_feature_alignment(student, student, weight).item() == 0


def test_half_precision_does_not_overflow():
    # 300^2 = 90,000 exceeds the largest half (65,504)
    student = torch.full((2, 3), 300.0, dtype=torch.float16)
    loss = weighted_feature_alignment(student, torch.zeros_like(student), torch.ones(2))
    assert loss.item() == pytest.approx(90_000)
    assert alignment_weight(student, torch.zeros_like(student)).dtype == torch.float32


def test_module_is_the_weighted_function():
    torch.manual_seed(0)
    features, logits = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 5)
    module = MODELS.build(
        dict(
            type='WeightedFeatureAlignmentLoss',
            weight='one_minus_sigmoid',
            space='probs',
            loss_weight=2.0,
        )
    )
    weight = alignment_weight(logits[0], logits[1], 'one_minus_sigmoid', 'probs')
    torch.testing.assert_close(module.weight(logits[0], logits[1]), weight)
    torch.testing.assert_close(
        module(*features, weight), 2 * weighted_feature_alignment(*features, weight)
    )


def test_usage_errors():
    logits = torch.zeros(2, 3)
    with pytest.raises(UsageError, match="does not train.*space='probs'"):
        alignment_weight(logits, logits, 'one_minus_sigmoid')
    with pytest.raises(UsageError, match='does not train'):
        WeightedFeatureAlignmentLoss(weight='one_minus_sigmoid')
    with pytest.raises(UsageError, match=r"alignment\.weight='softmax' is not known"):
        WeightedFeatureAlignmentLoss(weight='softmax')
    with pytest.raises(UsageError, match=r"alignment\.space='features' is not known"):
        WeightedFeatureAlignmentLoss(space='features')


def test_shapes_must_agree():
    with pytest.raises(AssertionError, match='student .2, 3, 4, 4., teacher .2, 3, 1, 1.'):
        weighted_feature_alignment(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1), torch.ones(2))
