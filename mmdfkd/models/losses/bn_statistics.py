# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Distance of a batch's statistics from those a teacher remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.models.modules.batch_statistics import BatchStatistics
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice

_EPSILON = 1e-5


def bn_statistics_loss(
    statistics: Sequence[BatchStatistics],
    form: Literal['l2', 'gauss_kl'] = 'l2',
    first_weight: float = 1.0,
) -> Tensor:
    r"""Sum over BatchNorm layers of the distance between batch and running statistics.

    .. math::
        L_{l2} &= \sum_l \|\sigma_l^2 - \hat\sigma_l^2\|_2 + \|\mu_l - \hat\mu_l\|_2 \\
        L_{KL} &= \sum_{l,c} \frac{(\mu - \hat\mu)^2 + \sigma^2}{2 \hat\sigma^2}
                  - \ln\frac{\sigma}{\hat\sigma} - \frac12

    Source: ``l2``: Yin et al., "Dreaming to Distill", arXiv 1912.08795, Eq. (4), norms not squared;
    ``gauss_kl``: Choi et al., DFQ, arXiv 2005.04136, KL of the batch's Gaussian from the stored.
    In the latter variances count as BatchNorm's epsilon at least: a channel that was silent in
    training remembers one of zero, and would ask for nothing but silence.

    Args:
        statistics: What :func:`~mmdfkd.models.modules.record_batch_statistics` recorded.
        form: Which of the two.
        first_weight: Factor on the first layer's distance; DeepInversion takes 10 for ImageNet.

    Returns:
        A scalar >= 0; 0, with zero gradient, where all statistics agree.
    """
    terms = []
    for mean, var, running_mean, running_var in statistics:
        if form == 'l2':
            difference = torch.stack([var - running_var, mean - running_mean])
            terms.append(torch.linalg.vector_norm(difference, dim=1).sum())
        else:
            var, running_var = var.clamp(min=_EPSILON), running_var.clamp(min=_EPSILON)
            distance = (mean - running_mean).square() + var - running_var
            terms.append((distance / running_var - (var / running_var).log()).sum() / 2)
    terms[0] = first_weight * terms[0]
    return torch.stack(terms).sum()


@MODELS.register_module()
class BNStatisticsLoss(nn.Module):
    """Module form of :func:`bn_statistics_loss`.

    Args:
        form: ``'l2'`` or ``'gauss_kl'``.
        loss_weight: Factor.
        first_weight: Factor on the first layer's distance.
    """

    def __init__(
        self,
        form: Literal['l2', 'gauss_kl'] = 'l2',
        loss_weight: float = 1.0,
        first_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice('BNStatisticsLoss: form', form, ('l2', 'gauss_kl'))
        self.form = form
        self.loss_weight = loss_weight
        self.first_weight = first_weight

    def forward(self, statistics: Sequence[BatchStatistics]) -> Tensor:
        """See :func:`bn_statistics_loss`."""
        return self.loss_weight * bn_statistics_loss(statistics, self.form, self.first_weight)
