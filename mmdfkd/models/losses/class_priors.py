# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What generated images should look like to a teacher: certain, active, of all classes."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32


def one_hot_loss(logits: Tensor, form: Literal['argmax', 'entropy'] = 'argmax') -> Tensor:
    r"""How uncertain each prediction is.

    .. math::
        L_{argmax} = \frac1B \sum_b -\ln \max_k p_{bk}, \qquad
        L_{entropy} = -\frac1B \sum_{b,k} p_{bk} \ln p_{bk}

    Source: Chen et al., DAFL, arXiv 1904.01186, L_oh; ``entropy``: Choi et al., DFQ, arXiv
    2005.04136, the entropy of each instance.

    Args:
        logits: The teacher's, ``(B, K)``.
        form: Cross-entropy with the teacher's own argmax, or entropy.

    Returns:
        A scalar in [0, ln K].
    """
    logits = at_least_float32(logits)
    if form == 'argmax':
        return F.cross_entropy(logits, logits.argmax(1))
    log_probabilities = F.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(1).mean()


def class_balance_loss(
    logits: Tensor, log_base: float = 10.0, weight: Tensor | None = None
) -> Tensor:
    r"""Minus the entropy of the mean prediction: how unevenly a batch covers the classes.

    .. math:: L_{ie} = \sum_k w_k m_k \log m_k, \qquad m = \frac1B \sum_b \mathrm{softmax}(z_b)

    The mean is over all processes. Source: Chen et al., DAFL, arXiv 1904.01186, L_ie, without the
    factor 1/K of the paper, and base 10, as in its code; DFQ takes the natural logarithm.

    Args:
        logits: The teacher's, ``(B, K)``.
        log_base: Base of the logarithm: 10 (DAFL, PRE-DFKD) or e (DFQ, HiDFD).
        weight: w of the classes, constants ``(K,)``, for HiDFD's category frequency smoothing;
            all one by default.

    Returns:
        A scalar in [-log K, 0]; the minimum is a uniform mean where all weights are one. Finite
        for any logits.
    """
    mean = gather_batch(at_least_float32(logits).softmax(1)).mean(0)
    tiny = torch.finfo(mean.dtype).tiny  # 0 log 0 = 0, with a finite gradient
    terms = mean * mean.clamp(min=tiny).log()
    return (terms if weight is None else weight * terms).sum() / math.log(log_base)


def activation_loss(features: Tensor, reduction: Literal['mean', 'l1', 'fro'] = 'mean') -> Tensor:
    r"""Minus the size of the features: images the teacher was trained on excite it.

    Source: Chen et al., DAFL, arXiv 1904.01186, L_a: ``mean`` is its code, to which its weights
    belong, ``l1`` its formula, D times larger; ``fro`` is MMRazor's minus Frobenius norm.

    Args:
        features: The teacher's pooled vectors before its last linear layers, ``(B, D)``.
        reduction: Mean over all elements, L1 norm averaged over the batch, or Frobenius norm, which
            is that of the common batch of all processes.

    Returns:
        A scalar <= 0.
    """
    features = at_least_float32(features)
    if reduction == 'mean':
        return -features.abs().mean()
    if reduction == 'l1':
        return -features.abs().flatten(1).sum(1).mean()
    return -gather_batch(features).norm()


@MODELS.register_module()
class OneHotLoss(nn.Module):
    """Module form of :func:`one_hot_loss`.

    Args:
        form: ``'argmax'`` or ``'entropy'``.
        loss_weight: Factor.
    """

    def __init__(
        self, form: Literal['argmax', 'entropy'] = 'argmax', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_choice('OneHotLoss: form', form, ('argmax', 'entropy'))
        self.form = form
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor) -> Tensor:
        """See :func:`one_hot_loss`."""
        return self.loss_weight * one_hot_loss(logits, self.form)


@MODELS.register_module()
class ClassBalanceLoss(nn.Module):
    """Module form of :func:`class_balance_loss`.

    Args:
        log_base: Base of the logarithm, > 1.
        loss_weight: Factor.
    """

    def __init__(self, log_base: float = 10.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if log_base <= 1:
            raise UsageError(f'ClassBalanceLoss: log_base={log_base}; give 10 or 2.718281828.')
        self.log_base = log_base
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor) -> Tensor:
        """See :func:`class_balance_loss`."""
        return self.loss_weight * class_balance_loss(logits, self.log_base)


@MODELS.register_module()
class ActivationLoss(nn.Module):
    """Module form of :func:`activation_loss`.

    Args:
        reduction: ``'mean'``, ``'l1'`` or ``'fro'``.
        loss_weight: Factor.
    """

    def __init__(
        self, reduction: Literal['mean', 'l1', 'fro'] = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_choice('ActivationLoss: reduction', reduction, ('mean', 'l1', 'fro'))
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self, features: Tensor) -> Tensor:
        """See :func:`activation_loss`."""
        return self.loss_weight * activation_loss(features, self.reduction)
