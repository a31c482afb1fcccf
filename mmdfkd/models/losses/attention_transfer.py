# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Attention transfer: the student looks where its teacher looks.

Zagoruyko and Komodakis, "Paying More Attention to Attention: Improving the Performance of
Convolutional Neural Networks via Attention Transfer", ICLR 2017, arXiv 1612.03928; published code:
github.com/szagoruyko/attention-transfer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

from .map_loss import MapLoss, Shape


def attention_map(feature: Tensor, p: float = 2.0) -> Tensor:
    r"""Spatial attention: mean over the channels of ``|F|^p`` (section 3.1).

    Whether channels are summed or averaged makes no difference once maps are normalised; p does:
    the larger, the more the strongest activations count.

    Args:
        feature: ``(B, C, H, W)``.
        p: At least 1.

    Returns:
        ``(B, H, W)``, >= 0, at least float32.
    """
    feature = at_least_float32(feature)
    return (feature.square() if p == 2 else feature.abs().pow(p)).mean(1)


def attention_transfer(
    student_map: Tensor,
    teacher_map: Tensor,
    p: float = 2.0,
    form: Literal['mean', 'sum', 'norm'] = 'mean',
) -> Tensor:
    r"""Distance between the normalised attention maps of two feature maps.

    .. math::
        Q(F) = \frac{a(F)}{\max(\lVert a(F) \rVert_2, 10^{-12})}, \qquad
        L_{sum} = \frac1B \sum_i \lVert Q(F^s_i) - Q(F^t_i) \rVert_2^2
                = \frac1B \sum_i (2 - 2 \cos_i), \qquad
        L_{mean} = \frac{L_{sum}}{HW}

    ``mean`` is the published code, to which the usual weight of 1,000 belongs; since it divides by
    the area, a weight for 32-pixel images has to grow fourfold for 64-pixel ones. ``norm`` is the
    paper's Eq. (2), the distance without the square; its factor of one half belongs to the weight.

    Args:
        student_map: ``(B, C_s, H_s, W_s)``; channels need not agree.
        teacher_map: ``(B, C_t, H_t, W_t)``; treated as a constant. Where sizes differ, both
            *attention* maps are average-pooled to the smaller height and width.
        p: Power of the attention maps, see :func:`attention_map`.
        form: 'mean', 'sum' or 'norm'.

    Returns:
        A scalar, 0 for proportional attention, at most 2 (``sum``), 2 / HW (``mean``), sqrt 2
        (``norm``). Scaling either feature map changes nothing.
    """
    student = attention_map(student_map, p)
    teacher = attention_map(teacher_map.detach(), p)
    if student.shape != teacher.shape:
        height, width = map(min, student.shape[1:], teacher.shape[1:])
        student = F.adaptive_avg_pool2d(student, (height, width))
        teacher = F.adaptive_avg_pool2d(teacher, (height, width))
    difference = F.normalize(student.flatten(1)) - F.normalize(teacher.flatten(1))
    if form == 'mean':
        return difference.square().mean()
    if form == 'sum':
        return difference.square().sum(1).mean()
    return torch.linalg.vector_norm(difference, dim=1).mean()


@MODELS.register_module()
class AttentionTransferLoss(MapLoss):
    """:func:`attention_transfer`, summed over pairs of maps.

    Args:
        indices: Positions of the pairs that count; ``None`` takes all. A 1x1 map has nothing to
            look at: its pair always gives 0.
        p: Power of the attention maps.
        form: 'mean' (published code), 'sum' or 'norm' (paper).
        loss_weight: Factor on the returned sum, beta of the paper.

    Raises:
        UsageError: If ``p`` is below 1 or the form is unknown.
    """

    def __init__(
        self,
        indices: Sequence[int] | None = None,
        p: float = 2.0,
        form: Literal['mean', 'sum', 'norm'] = 'mean',
        loss_weight: float = 1000.0,
    ) -> None:
        super().__init__(indices, loss_weight)
        if p < 1:
            raise UsageError(f'AttentionTransferLoss: p={p}, expected at least 1; 2 is usual.')
        check_choice('AttentionTransferLoss: form', form, ('mean', 'sum', 'norm'))
        self.p = p
        self.form = form

    def fit_pairs(self, pairs: Mapping[int, tuple[Shape, Shape]], learner: str) -> None:
        """At least one pair must have more than one place to look at."""
        if all(min(one[1], other[1]) * min(one[2], other[2]) == 1 for one, other in pairs.values()):
            raise UsageError(
                'AttentionTransferLoss: all maps that it compares have 1 x 1 places, so it is '
                f'always 0. Choose earlier stages by model.{learner}.backbone.out_indices and '
                'model.teacher.backbone.out_indices (maps of a ForeignClassifier), or give it the '
                'weight 0.'
            )

    @torch.no_grad()
    def condense(self, feature: Tensor) -> Tensor:
        """One channel ``(B, 1, H, W)`` with the attention of all, for maps compared often."""
        return attention_map(feature, self.p).pow(1 / self.p)[:, None]

    def compare(self, index: int, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """The attention loss of one pair."""
        return attention_transfer(student_map, teacher_map, self.p, self.form)
