# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Category frequency smoothing of HiDFD: rare classes are asked for more."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice, check_least

from .class_priors import class_balance_loss


@MODELS.register_module()
class CategoryFrequencySmoothing(nn.Module):
    r"""Weighted entropy of the mean prediction; the weights follow how often classes are seen.

    .. math::
        L = \lambda \sum_k w_k \bar p_k \log \bar p_k, \qquad
        \bar p = \frac1B \sum_b \mathrm{softmax}(T(x_b)) \\
        N_k \leftarrow \max(1,\; d N_k + (1 - d) c_k), \quad c_k \leftarrow 0
        \qquad\text{(refresh)} \\
        v_k = \frac{1 - \beta}{1 - \beta^{N_k}} \ \text{(effective)}
        \quad\text{or}\quad v_k = \frac{1}{N_k} \ \text{(inverse)}, \qquad
        w_k = K \frac{v_k}{\sum_j v_j}

    :math:`c_k` counts generated images by the class the teacher sees, of all processes. The
    effective number is above 0.99 of its limit from 460 images on, so that its weights are equal
    where a class is seen more often than that between two refreshes; the inverse has no scale.

    With fewer than four classes all weights stay one: on the simplex a larger weight raises the
    share of a class only where :math:`\log \bar p_k + 1 < 0`. It lowers it for two classes.

    Source: Tang et al., HiDFD, AAAI 2025, arXiv 2412.13525, whose code takes it from Rangwani et
    al., UAI 2021, arXiv 2106.10060.

    Args:
        num_classes: Number of classes K; filled in from the teacher.
        loss_weight: Factor lambda.
        interval: Iterations between two refreshes; 0 never refreshes, so that all weights stay
            one and L is minus the entropy (published code).
        mode: ``'inverse'`` or ``'effective'``.
        beta: Of the effective number, in [0, 1).
        decay: d in [0, 1).
        convex: Whether new counts enter with the factor 1 - d, else with 1.
        first: :math:`N_k` in the beginning.
        first_counts: :math:`c_k` in the beginning (published code: 512).

    Attributes:
        frequency: N, float64 ``(K,)``.
        counts: c, float64 ``(K,)``.
        weight: w, float32 ``(K,)``.
        earliest: c at the first refresh, before any weight differed from one, ``(K,)``.
        latest: c at the last refresh; both are zero before the first one.
    """

    frequency: Tensor
    counts: Tensor
    weight: Tensor
    earliest: Tensor
    latest: Tensor

    def __init__(
        self,
        num_classes: int,
        loss_weight: float = 0.1,
        interval: int = 200,
        mode: Literal['inverse', 'effective'] = 'inverse',
        beta: float = 0.99,
        decay: float = 0.5,
        convex: bool = True,
        first: float = 50.0,
        first_counts: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice('model.smoothing.mode', mode, ('inverse', 'effective'))
        for name, value in dict(beta=beta, decay=decay).items():
            if not 0 <= value < 1:
                raise UsageError(f'model.smoothing.{name} is {value}; give 0 or more, below 1.')
        check_least('model.smoothing.interval', interval, 0)
        if first <= 0:
            raise UsageError(f'model.smoothing.first is {first}; give a number above 0.')
        self.loss_weight = loss_weight
        self.interval = interval
        self.mode = mode
        self.beta = beta
        self.decay = decay
        self.convex = convex
        everywhere = torch.ones(num_classes, dtype=torch.float64)
        self.register_buffer('frequency', first * everywhere)
        self.register_buffer('counts', first_counts * everywhere)
        self.register_buffer('weight', torch.ones(num_classes))
        self.register_buffer('earliest', 0 * everywhere)
        self.register_buffer('latest', 0 * everywhere)

    def forward(self, logits: Tensor) -> Tensor:
        """L of the teacher's logits of generated images ``(B, K)``, a scalar."""
        return self.loss_weight * class_balance_loss(logits, math.e, self.weight)

    @torch.no_grad()
    def count(self, labels: Tensor) -> None:
        """Count generated images by the class the teacher sees ``(B,)``; after every step."""
        labels = gather_batch(labels)
        self.counts.scatter_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    def refresh_when_due(self, iteration: int) -> None:
        """Refresh the weights where this iteration, counted from 1, is the last of an interval."""
        if self.interval and iteration % self.interval == 0:
            self.refresh()

    def refresh(self) -> None:
        """Take the counts into the frequencies, and compute the weights anew."""
        share = 1 - self.decay if self.convex else 1.0
        self.earliest = torch.where(self.earliest.any(), self.earliest, self.counts)
        self.latest = self.counts
        self.frequency = (self.decay * self.frequency + share * self.counts).clamp(min=1)
        self.counts = torch.zeros_like(self.counts)
        if len(self.weight) < 4:
            return
        if self.mode == 'effective':
            value = (1 - self.beta) / (1 - self.beta**self.frequency)
        else:
            value = 1 / self.frequency
        self.weight = (len(value) * value / value.sum()).to(self.weight.dtype)
