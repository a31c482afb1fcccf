# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Dynamic instance selection of KD³: Eqs. (2) to (8)."""

from __future__ import annotations

import logging
import math
from typing import Literal

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils.errors import UsageError, check_choice

from .base import Selector
from .selection import Selection


def ramp(epoch: int, max_epochs: int, form: Literal['paper', 'official'] = 'paper') -> float:
    r"""Weight ``a(t)`` of the student in the combined prediction, KD³ Eq. (4).

    .. math:: a(t) = \exp(-5 (1 - t / (I/2))^2) \text{ if } t \le I/2 \text{ else } 1

    Args:
        epoch: Current epoch ``t``, counted from 1.
        max_epochs: Length ``I`` of the training.
        form: ``'paper'``: the formula above, continuous. ``'official'``: the published code's
            fixed constants for 240 epochs, ``exp(-5 (1 - (t+1)/160)^2)`` for ``t < 120`` and 1
            after, which jumps from 0.73 to 1.

    Returns:
        ``a(t)`` in (0, 1].
    """
    if form == 'official':
        return math.exp(-5 * (1 - (epoch + 1) / 160) ** 2) if epoch < 120 else 1.0
    half = max_epochs / 2
    return math.exp(-5 * (1 - epoch / half) ** 2) if epoch <= half else 1.0


def combine(
    teacher_logits: Tensor,
    student_logits: Tensor,
    student_weight: float,
    space: Literal['logits', 'probs'] = 'logits',
) -> Tensor:
    """Combined prediction ``(1 - a) N_T(x) + a N_S(x)`` as probabilities, KD³ Eq. (3).

    Args:
        teacher_logits: ``N_T``, ``(N, K)``.
        student_logits: ``N_S``, ``(N, K)``.
        student_weight: ``a`` in [0, 1].
        space: ``'logits'``: mix logits, then softmax (published code). ``'probs'``: mix
            probabilities (paper).

    Returns:
        ``(N, K)``, rows sum to one.
    """
    if space == 'probs':
        teacher_logits, student_logits = teacher_logits.softmax(1), student_logits.softmax(1)
    mixed = torch.lerp(teacher_logits, student_logits, student_weight)
    return mixed if space == 'probs' else mixed.softmax(1)


def class_thresholds(
    counts: Tensor, threshold: float, norm: Literal['convex', 'linear', 'none'] = 'convex'
) -> Tensor:
    r"""Class-wise thresholds ``T_c = Normalization(n_c) V_th``, KD³ Eqs. (6) and (7).

    Frequent classes are held to ``V_th``, rare ones get a low bar, which rebalances the selection.

    Args:
        counts: ``n_c``, images of the whole pool predicted as class c, ``(K,)``.
        threshold: ``V_th`` in (0, 1].
        norm: With ``r = n_c / max n``: ``'convex'`` is ``r / (2 - r)`` (published code; the map of
            FlexMatch, arXiv 2110.08263), ``'linear'`` is ``r``, ``'none'`` is 1 for every class.

    Returns:
        ``T_c`` in [0, V_th], ``(K,)``.
    """
    ratio = counts / counts.max().clamp(min=1)
    if norm == 'convex':
        ratio = ratio / (2 - ratio)
    elif norm == 'none':
        ratio = torch.ones_like(ratio)
    return ratio * threshold


@TASK_UTILS.register_module()
class DynamicSelector(Selector):
    """Keep the pool images whose combined prediction beats the threshold of its class.

    Teacher and student predict the whole pool before every epoch; the student's say grows along
    :func:`ramp`. Pseudo-labels only pick thresholds, they never enter a loss.

    Args:
        threshold: ``V_th``, the confidence a most frequent class must exceed.
        ramp: Form of ``a(t)``, see :func:`ramp`.
        combine: What is mixed, see :func:`combine`.
        norm: Normalisation of the counts, see :func:`class_thresholds`.
        teacher_weight: Fixes the weight of the teacher instead of the ramp: 1 is "only N_T" and 0
            "only N_S" of the paper's Table 2.
        mode: ``'criterion'``, or ``'random'``: as many images as the criterion keeps, drawn at
            random (Table 2).
        min_selected: When the criterion keeps fewer images, the most confident of the others fill
            up; said in the log.
    """

    needs = ('teacher', 'student')

    def __init__(
        self,
        threshold: float = 0.95,
        ramp: Literal['paper', 'official'] = 'paper',
        combine: Literal['logits', 'probs'] = 'logits',
        norm: Literal['convex', 'linear', 'none'] = 'convex',
        teacher_weight: float | None = None,
        mode: Literal['criterion', 'random'] = 'criterion',
        min_selected: int = 64,
    ) -> None:
        check_choice('model.selector.ramp', ramp, ('paper', 'official'))
        check_choice('model.selector.combine', combine, ('logits', 'probs'))
        check_choice('model.selector.norm', norm, ('convex', 'linear', 'none'))
        check_choice('model.selector.mode', mode, ('criterion', 'random'))
        if not 0 < threshold <= 1:
            raise UsageError(f'model.selector.threshold is {threshold}; it must lie in (0, 1].')
        if teacher_weight is not None and not 0 <= teacher_weight <= 1:
            raise UsageError(
                f'model.selector.teacher_weight is {teacher_weight}; it must lie in [0, 1].'
            )
        if min_selected < 0:
            raise UsageError(
                f'model.selector.min_selected is {min_selected}; give a number of images >= 0.'
            )
        self.threshold = threshold
        self.ramp = ramp
        self.combine = combine
        self.norm = norm
        self.teacher_weight = teacher_weight
        self.mode = mode
        self.min_selected = min_selected

    def __call__(
        self,
        *,
        teacher_logits: Tensor,
        student_logits: Tensor,
        epoch: int,
        max_epochs: int,
        **ignored: object,
    ) -> Selection:
        """Select from a pool.

        Args:
            teacher_logits: ``(N, K)``, of the whole pool.
            student_logits: ``(N, K)``, likewise.
            epoch: Current epoch ``t``, counted from 1.
            max_epochs: Length ``I`` of the training.
            ignored: What other selectors want.
        """
        if self.teacher_weight is None:
            weight = ramp(epoch, max_epochs, self.ramp)  # Eq. (4)
        else:
            weight = 1 - self.teacher_weight
        probabilities = combine(teacher_logits, student_logits, weight, self.combine)  # Eq. (3)
        confidence, labels = probabilities.max(1)  # Eq. (5)
        counts = torch.bincount(labels, minlength=probabilities.shape[1])
        thresholds = class_thresholds(counts, self.threshold, self.norm)  # Eqs. (6), (7)
        indices = (confidence > thresholds[labels]).nonzero().flatten()  # Eq. (8)
        indices = self._fill_up(indices, confidence)
        if self.mode == 'random':
            indices = torch.randperm(len(labels))[: len(indices)].sort().values
        return Selection(indices, confidence, labels, thresholds, counts, weight)

    def _fill_up(self, indices: Tensor, confidence: Tensor) -> Tensor:
        wanted = min(self.min_selected, len(confidence))
        if len(indices) == 0 and wanted == 0:
            raise UsageError(
                f'The selection is empty: no pool image beats its threshold (V_th = '
                f'{self.threshold}). Lower model.selector.threshold, set '
                'model.selector.min_selected to fall back to the most confident images, or check '
                'that the pool suits the teacher.'
            )
        if len(indices) >= wanted:
            return indices
        print_log(
            f'Selection: only {len(indices)} images beat their threshold; the most confident '
            f'others make up the {wanted} of model.selector.min_selected.',
            'current',
            logging.WARNING,
        )
        first = confidence.index_fill(0, indices, math.inf)
        return first.topk(wanted).indices.sort().values
