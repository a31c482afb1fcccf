# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The Jensen-Shannon divergence between teacher and student, and what DeepInversion codes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

#: Probabilities are kept within these bounds.
_LOW, _HIGH = 0.01, 0.99


def js_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 3.0,
    reduction: Literal['batchmean', 'mean'] = 'batchmean',
    form: Literal['legacy', 'exact'] = 'legacy',
) -> Tensor:
    r"""How far two predictions are apart, symmetric and bounded.

    .. math::
        J_{exact} &= \frac1B \sum_b \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \qquad
        m = \tfrac12 (p + q) \\
        J_{legacy} &= \frac1B \sum_b \tfrac12 KL(m \| p) + \tfrac12 KL(m \| q)

    with p and q the two softmaxes at temperature T. ``exact`` is the definition. ``legacy`` is what
    the published code computes: there p, q and m are clamped to [0.01, 0.99] and have no gradient
    beyond, as most of a hundred classes are; and J, the mean over all processes, is clamped to
    [0, 1] likewise.

    Source: Yin et al., "Dreaming to Distill", arXiv 1912.08795, R_compete, and its code at
    github.com/NVlabs/DeepInversion.

    Args:
        student_logits: ``(B, K)``.
        teacher_logits: ``(B, K)``. Gradient flows to them as well.
        temperature: T > 0; there is no factor T^2.
        reduction: ``'mean'`` divides J by K ahead of the clamp: the mean over classes too, as in
            the code of PRE-DFKD.
        form: ``'legacy'`` or ``'exact'``.

    Returns:
        A scalar in [0, 1], of the exact form in [0, ln 2]; 0 where the two rows differ by a
        constant. At least float32.
    """
    logits = [at_least_float32(z) / temperature for z in (student_logits, teacher_logits)]
    p, q = (values.softmax(1) for values in logits)
    if form == 'exact':
        log_p, log_q = (values.log_softmax(1) for values in logits)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        each = (p * (log_p - log_m) + q * (log_q - log_m)).sum(1) / 2
    else:
        p, q, m = (x.clamp(_LOW, _HIGH) for x in (p, q, (p + q) / 2))
        each = (m * (m.log() - (p.log() + q.log()) / 2)).sum(1)
    mean = gather_batch(each).mean()
    mean = mean / p.shape[1] if reduction == 'mean' else mean
    return mean if form == 'exact' else mean.clamp(0, 1)


@MODELS.register_module()
class JSDivergence(nn.Module):
    """Module form of :func:`js_divergence`.

    Args:
        temperature: Softmax temperature T > 0.
        loss_weight: Factor.
        reduction: ``'batchmean'`` or ``'mean'``.
        form: ``'legacy'`` or ``'exact'``.
    """

    def __init__(
        self,
        temperature: float = 3.0,
        loss_weight: float = 1.0,
        reduction: Literal['batchmean', 'mean'] = 'batchmean',
        form: Literal['legacy', 'exact'] = 'legacy',
    ) -> None:
        super().__init__()
        check_choice('JSDivergence: reduction', reduction, ('batchmean', 'mean'))
        check_choice('JSDivergence: form', form, ('legacy', 'exact'))
        if temperature <= 0:
            raise UsageError(f'JSDivergence: temperature={temperature}; give a number above 0.')
        self.temperature = temperature
        self.reduction = reduction
        self.form = form
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the weighted divergence of logits ``(B, K)``."""
        return self.loss_weight * js_divergence(
            student_logits, teacher_logits, self.temperature, self.reduction, self.form
        )
