# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The Jensen-Shannon divergence between teacher and student, as DeepInversion codes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError

#: Probabilities are kept within these bounds.
_LOW, _HIGH = 0.01, 0.99


def js_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 3.0
) -> Tensor:
    r"""How far two predictions are apart, symmetric and bounded.

    .. math::
        J = \frac1B \sum_b \tfrac12 KL(m \| p) + \tfrac12 KL(m \| q), \qquad
        m = \tfrac12 (p + q)

    with p and q the two softmaxes at temperature T, and p, q and m clamped to [0.01, 0.99]; J, the
    mean over all processes, is clamped to [0, 1] and has no gradient beyond. The definition has the
    arguments of KL the other way round and no clamps; this is what the published code computes.

    Source: Yin et al., "Dreaming to Distill", arXiv 1912.08795, R_compete, and its code at
    github.com/NVlabs/DeepInversion.

    Args:
        student_logits: ``(B, K)``.
        teacher_logits: ``(B, K)``. Gradient flows to them as well.
        temperature: T > 0; there is no factor T^2.

    Returns:
        A scalar in [0, 1]; 0 where the two rows differ by a constant. At least float32.
    """
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    p = (student_logits.to(dtype) / temperature).softmax(1)
    q = (teacher_logits.to(dtype) / temperature).softmax(1)
    p, q, m = (x.clamp(_LOW, _HIGH) for x in (p, q, (p + q) / 2))
    each = (m * (m.log() - (p.log() + q.log()) / 2)).sum(1)
    return gather_batch(each).mean().clamp(0, 1)


@MODELS.register_module()
class JSDivergence(nn.Module):
    """Module form of :func:`js_divergence`.

    Args:
        temperature: Softmax temperature T > 0.
        loss_weight: Factor.
    """

    def __init__(self, temperature: float = 3.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(f'JSDivergence: temperature={temperature}; give a number above 0.')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the weighted divergence of logits ``(B, K)``."""
        return self.loss_weight * js_divergence(student_logits, teacher_logits, self.temperature)
