# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Weighted feature alignment of KD³, Eqs. (9) and (10).

Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
ICCV 2023, arXiv 2307.11469; official code: github.com/tangjialiang97/KD3.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

Form = Literal['sigmoid', 'one_minus_sigmoid', 'none']
Space = Literal['logits', 'probs']


def _check(form: Form, space: Space) -> None:
    check_choice('alignment.weight', form, get_args(Form))
    check_choice('alignment.space', space, get_args(Space))
    if form == 'one_minus_sigmoid' and space == 'logits':
        raise UsageError(
            "alignment weight 'one_minus_sigmoid' with space='logits' does not train: an "
            'untrained student is about 10 logits away from its teacher, where the weight is '
            "below 1e-4 and the alignment loss vanishes. Use space='probs', or weight='sigmoid'."
        )


@torch.no_grad()
def alignment_weight(
    student_logits: Tensor,
    teacher_logits: Tensor,
    form: Form = 'sigmoid',
    space: Space = 'logits',
) -> Tensor:
    r"""Weight of each image from the distance of its two predictions, Eq. (9).

    .. math::
        d_i = \lVert N_S(x_i) - N_T(x_i) + \epsilon \rVert_2, \qquad
        w_i = \sigma(d_i) \ \text{(official code)} \quad\text{or}\quad
        w_i = 1 - \sigma(d_i) \ \text{(paper)}

    with the eps = 1e-6 of :func:`torch.nn.functional.pairwise_distance`. The two go opposite
    ways: the code gives *inconsistent* images more weight, from 0.5 at d = 0 to 1; the paper
    gives consistent ones more, from 0.5 at d = 0 to 0. The paper's form is usable on
    probabilities only, where d <= sqrt(2) and w lies in [0.196, 0.5].

    Args:
        student_logits: ``(B, K)``, before the softmax.
        teacher_logits: ``(B, K)``, before the softmax.
        form: 'sigmoid', 'one_minus_sigmoid' or 'none' (all ones).
        space: 'logits', or 'probs' to take the distance after a softmax.

    Returns:
        ``(B,)`` without gradient, at least float32.

    Raises:
        UsageError: If ``form`` or ``space`` is unknown, or for 'one_minus_sigmoid' on logits.
    """
    _check(form, space)
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits)
    if form == 'none':
        return student.new_ones(len(student))
    if space == 'probs':
        student, teacher = student.softmax(dim=1), teacher.softmax(dim=1)
    distance = F.pairwise_distance(student, teacher)
    return torch.sigmoid(distance if form == 'sigmoid' else -distance)


def weighted_feature_alignment(
    student_feature: Tensor, teacher_feature: Tensor, weight: Tensor
) -> Tensor:
    r"""Weighted mean squared error between features, Eq. (10).

    .. math::
        L = \frac{1}{B} \sum_i w_i \cdot
            \frac{1}{CHW} \lVert f^S_i - f^T_i \rVert_2^2

    Args:
        student_feature: Map ``(B, C, H, W)`` or vector ``(B, C)``, already adapted to the
            teacher's shape.
        teacher_feature: Same shape; treated as a constant.
        weight: ``(B,)``, see :func:`alignment_weight`.

    Returns:
        A scalar >= 0, the mean over all of a feature's elements, then over the batch. Computed in
        float32 for half-precision features.
    """
    assert student_feature.shape == teacher_feature.shape, (
        f'features differ in shape: student {tuple(student_feature.shape)}, '
        f'teacher {tuple(teacher_feature.shape)}'
    )
    student, teacher = at_least_float32(student_feature), at_least_float32(teacher_feature.detach())
    error = F.mse_loss(student, teacher, reduction='none')
    # A mean over dimensions, not flatten().mean(): the latter would copy channels_last maps.
    return (weight * error.mean(dim=tuple(range(1, error.ndim)))).mean()


@MODELS.register_module()
class WeightedFeatureAlignmentLoss(nn.Module):
    """Module form of :func:`alignment_weight` and :func:`weighted_feature_alignment`.

    The weights are given to the call, so that they can be logged; the module keeps nothing.

    Args:
        weight: Form of the weight: 'sigmoid' (official code), 'one_minus_sigmoid' (paper; needs
            ``space='probs'``) or 'none'.
        space: Where the distance is measured: 'logits' or 'probs'.
        loss_weight: Factor on the returned loss.

    Raises:
        UsageError: If ``weight`` or ``space`` is unknown, or for 'one_minus_sigmoid' on logits.
    """

    def __init__(
        self, weight: Form = 'sigmoid', space: Space = 'logits', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        _check(weight, space)
        self.form = weight
        self.space = space
        self.loss_weight = loss_weight

    def weight(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the alignment weights ``(B,)`` this loss uses for logits ``(B, K)``."""
        return alignment_weight(student_logits, teacher_logits, self.form, self.space)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of features ``(B, C[, H, W])`` under the weights ``(B,)``."""
        return self.loss_weight * weighted_feature_alignment(
            student_feature, teacher_feature, weight
        )
