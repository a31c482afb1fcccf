# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MixDistribution contrastive learning of KD³, Eqs. (15) and (16).

Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
ICCV 2023, arXiv 2307.11469; official code: github.com/tangjialiang97/KD3.

In a distributed run anchors are local and everything they are compared with is global, so the
mean of the losses over the ranks is the loss of the whole batch in one process.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmdfkd.models.modules.gather import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

_EPS = 1e-6  # smallest norm divided by: a zero vector stays zero


def _unit(embedding: Tensor) -> Tensor:
    return F.normalize(at_least_float32(embedding), dim=1, eps=_EPS)


def _exclude_self(logits: Tensor, start: int) -> None:
    """Set ``logits[k, start + k]`` to -inf, in place and unseen by autograd.

    Allowed because the softmax passes no gradient to -inf, and because nothing has saved the
    product for its backward; it spares a copy of the whole matrix there.
    """
    count = len(logits)
    logits.detach()[:, start : start + count].fill_diagonal_(float('-inf'))


class _SelfProduct(torch.autograd.Function):
    """``X X^T``, whose gradient ``(G + G^T) X`` is one product; autograd makes two of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        both = grad.T.clone(memory_format=torch.contiguous_format)  # copied in blocks, then added
        return both.add_(grad) @ x


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Symmetric normalised-temperature cross-entropy over two views (KD³'s official code).

    With the 2B unit vectors u = [first; second] and pos(k) the other view of k,

    .. math::
        L = \frac{1}{2B} \sum_k -\log \frac{\exp(u_k \cdot u_{pos(k)} / \tau)}
            {\sum_{l \ne k} \exp(u_k \cdot u_l / \tau)}

    The positive is part of the denominator. Source: SimCLR (Chen et al., ICML 2020, arXiv
    2002.05709), Eq. (1); KD³ uses it for its Eqs. (15) and (16).

    Args:
        first: Embeddings of one view, ``(B, D)``; need not have unit length.
        second: Embeddings of the other view of the same images, ``(B, D)``.
        temperature: tau > 0.

    Returns:
        A scalar >= 0, mean over the 2B local anchors; exactly 0 for a global batch of one,
        ``log(2B - 1)`` when all embeddings agree. Computed in float32, also under autocast.
    """
    batch = len(first)
    with torch.autocast(first.device.type, enabled=False):
        anchors = _unit(torch.cat([first, second])) / math.sqrt(temperature)  # u / sqrt(tau)
        everyone = gather_batch(anchors)
        alone = everyone is anchors  # in one process
        logits = _SelfProduct.apply(anchors) if alone else anchors @ everyone.T
        start = get_rank() * 2 * batch
        _exclude_self(logits, start)  # l != k
        positive = torch.arange(2 * batch, device=logits.device).roll(batch) + start
        return F.cross_entropy(logits, positive)


def cross_view_contrast(
    anchor: Tensor, other: Tensor, temperature: float, positive_in_denominator: bool = False
) -> Tensor:
    r"""One-directional contrast of two views, Eqs. (15) and (16) as printed.

    .. math::
        L = \frac{1}{B} \sum_i -\log \frac{\exp(a_i \cdot o_i / \tau)}
            {\sum_{j \ne i} \exp(a_i \cdot o_j / \tau)}

    on unit vectors. The printed indicator leaves the positive *out* of the denominator, so the
    loss **can be negative**, down to ``-2 / tau + log(B - 1)``. The paper sums over the selected
    set; this is the mean over the batch.

    Args:
        anchor: Embeddings of the clean images, ``(B, D)``; need not have unit length.
        other: Embeddings of the perturbed images, ``(B, D)``.
        temperature: tau > 0.
        positive_in_denominator: Whether j runs over i too, which makes the loss >= 0 (InfoNCE).

    Returns:
        A scalar, mean over the B local anchors; 0 for a global batch of one, where there are no
        negatives. Computed in float32, also under autocast.
    """
    batch = len(anchor)
    with torch.autocast(anchor.device.type, enabled=False):
        logits = (_unit(anchor) / temperature) @ gather_batch(_unit(other)).T
        start = get_rank() * batch
        if positive_in_denominator:
            return F.cross_entropy(logits, torch.arange(batch, device=logits.device) + start)
        if logits.shape[1] == 1:
            return logits.sum() * 0.0  # no negatives: nothing to compare with
        positive = logits.diagonal(start).clone()
        _exclude_self(logits, start)  # j != i
        return (logits.logsumexp(dim=1) - positive).mean()


@MODELS.register_module()
class MixDistributionContrastiveLoss(nn.Module):
    """Contrast between images and their MixDistribution perturbations, one network's term.

    Args:
        temperature: tau > 0.
        form: 'nt_xent' (official code, :func:`nt_xent`) or 'cross_view' (paper,
            :func:`cross_view_contrast` without the positive in the denominator).
        loss_weight: Factor on the returned loss, lambda of Eq. (18): 0.01 in the paper, 0.001 by
            default in the official code.

    Raises:
        UsageError: If the temperature is not positive or the form is unknown.
    """

    def __init__(
        self,
        temperature: float = 0.3,
        form: Literal['nt_xent', 'cross_view'] = 'nt_xent',
        loss_weight: float = 0.01,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(
                f'MixDistributionContrastiveLoss: temperature={temperature}, expected a number '
                '> 0; the paper uses 0.3.'
            )
        check_choice('MixDistributionContrastiveLoss: form', form, ('nt_xent', 'cross_view'))
        self.temperature = temperature
        self.contrast = nt_xent if form == 'nt_xent' else cross_view_contrast
        self.loss_weight = loss_weight

    def forward(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        """Return the weighted loss of two views' embeddings, each ``(B, D)``."""
        return self.loss_weight * self.contrast(clean, perturbed, self.temperature)
