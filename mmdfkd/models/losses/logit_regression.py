# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Distance between the logits of student and teacher."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice
from mmdfkd.utils.precision import at_least_float32


def logit_regression(
    student_logits: Tensor,
    teacher_logits: Tensor,
    form: Literal['l1', 'mse', 'sum_l2'] = 'mse',
) -> Tensor:
    r"""Regression of the student's logits on the teacher's.

    .. math::
        L_{l1} = \frac{1}{NK} \sum_{i,c} |z^s_{ic} - z^t_{ic}|, \qquad
        L_{mse} = \frac{1}{NK} \sum_{i,c} (z^s_{ic} - z^t_{ic})^2, \qquad
        L_{sum\_l2} = \frac{1}{N} \sum_i \lVert z^s_i - z^t_i \rVert_2^2

    ``sum_l2`` is K times ``mse``: a weight published for one is wrong by that factor for the other.
    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, arXiv 1312.6184,
    Eq. (1); L1 by DFAD, arXiv 1912.11006; ``sum_l2`` by Rocket Launching, arXiv 1708.04106. Unlike
    :func:`kl_divergence` it is not invariant to a constant added to all logits of a row.

    Args:
        student_logits: Before the softmax, ``(N, K)``.
        teacher_logits: Before the softmax, ``(N, K)``. Gradient flows to them as well; detach
            them where that is not wanted.
        form: One of the above.

    Returns:
        A scalar >= 0. Computed in float32 for half-precision logits.
    """
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits)
    if form == 'l1':
        return F.l1_loss(student, teacher)
    if form == 'mse':
        return F.mse_loss(student, teacher)
    return F.mse_loss(student, teacher, reduction='sum') / len(student)


@MODELS.register_module()
class LogitRegressionLoss(nn.Module):
    """Module form of :func:`logit_regression`.

    Args:
        form: 'l1', 'mse' or 'sum_l2'.
        loss_weight: Factor on the returned loss.

    Raises:
        UsageError: If the form is unknown.
    """

    def __init__(
        self, form: Literal['l1', 'mse', 'sum_l2'] = 'mse', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_choice('LogitRegressionLoss: form', form, ('l1', 'mse', 'sum_l2'))
        self.form = form
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the weighted loss of logits ``(N, K)``."""
        return self.loss_weight * logit_regression(student_logits, teacher_logits, self.form)
