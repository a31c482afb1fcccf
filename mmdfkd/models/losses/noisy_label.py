# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Learning from labels that are known to be wrong at times: DFND's noisy distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from torch import Tensor, nn

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.precision import at_least_float32


def noisy_nll(
    student_logits: Tensor, log_matrix: Tensor, pseudo_labels: Tensor, weight: Tensor | None = None
) -> Tensor:
    r"""Negative log-likelihood of noisy labels under the student and a noise model.

    .. math::
        L = \frac{\sum_b w_b\,(-\ln r_{b\tilde y_b})}{\sum_b w_b}, \qquad
        r_b = \mathrm{softmax}(s_b)\,Q

    Source: Chen et al., "Learning Student Networks in the Wild", CVPR 2021. Products are taken as
    sums of logarithms, so neither a very certain student nor a zero in Q gives an infinite or
    undefined gradient.

    Args:
        student_logits: s, ``(B, K)``.
        log_matrix: ln Q, ``(K, K)``: row = true class, column = pseudo-label; the rows of Q sum to
            1. See :meth:`~mmdfkd.models.modules.AdaptationMatrix.log`.
        pseudo_labels: ``(B,)`` int64 in [0, K).
        weight: ``(B,)``, not negative; ``None`` is 1 for each. Their sum is that of all processes.

    Returns:
        A scalar >= 0, in float32 for half-precision logits. It does not reach 0; with a on the
        diagonal of Q a perfect student has -ln a.
    """
    log_columns = log_matrix.t()[pseudo_labels]  # ln Q_iy of every true class i, (B, K)
    log_probability = F.log_softmax(at_least_float32(student_logits), dim=1)
    loss = -torch.logsumexp(log_probability + log_columns, dim=1)
    if weight is None:
        return loss.mean()
    total = gather_batch(weight).sum() / get_world_size()
    return (weight * loss).sum() / total


@MODELS.register_module()
class NoisyLabelLoss(nn.Module):
    """Module form of :func:`noisy_nll`.

    Args:
        loss_weight: Factor.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self,
        student_logits: Tensor,
        log_matrix: Tensor,
        pseudo_labels: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """See :func:`noisy_nll`."""
        return self.loss_weight * noisy_nll(student_logits, log_matrix, pseudo_labels, weight)
