# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How a teacher's pseudo-labels are corrupted: DFND's adaptation matrix."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice


@MODELS.register_module()
class AdaptationMatrix(nn.Module):
    r"""A learned noise model: the probability of each pseudo-label, given the true class.

    .. math::
        Q_{ii} = a_i, \qquad
        Q_{ij} = (1 - a_i)\,\mathrm{softmax}(W_i)_{j'}, \quad j' = j \text{ if } j < i
        \text{ else } j - 1

    Source: Chen et al., "Learning Student Networks in the Wild", CVPR 2021. Rows (true classes)
    sum to 1 whatever W is. At first the error 1 - a is spread evenly.

    Args:
        num_classes: K >= 2.
        teacher_accuracy: a in (0, 1], the share of correct pseudo-labels to expect. 1 makes Q the
            identity, with nothing to learn.
        diagonal: ``'fixed'``: a_i = a for ever (published code). ``'learned'``: a free diagonal
            (as in the paper's figure), a_i = sigmoid(ln(a / (1 - a)) + d_i) with d_i = 0 at first.

    Attributes:
        weight: W, ``(K, K - 1)``.
        diagonal_shift: d, ``(K,)``, or None.

    Raises:
        UsageError: Fewer than two classes, or an accuracy out of range.
    """

    accuracy: Tensor
    columns: Tensor
    is_diagonal: Tensor

    def __init__(
        self,
        num_classes: int,
        teacher_accuracy: float,
        diagonal: Literal['fixed', 'learned'] = 'fixed',
    ) -> None:
        super().__init__()
        check_choice('AdaptationMatrix: diagonal', diagonal, ('fixed', 'learned'))
        if num_classes < 2:
            raise UsageError(f'AdaptationMatrix has {num_classes} classes; give 2 or more.')
        self.weight = nn.Parameter(torch.zeros(num_classes, num_classes - 1))
        self.diagonal_shift = (
            nn.Parameter(torch.zeros(num_classes)) if diagonal == 'learned' else None
        )
        # Not in checkpoints: a belongs to the config, the teacher's file or the selection.
        self.register_buffer('accuracy', torch.empty(()), persistent=False)
        place = torch.arange(num_classes)
        columns = place - (place > place[:, None]).long()  # j', of no use where j = i
        columns = columns.clamp(max=num_classes - 2)
        self.register_buffer('columns', columns, persistent=False)
        self.register_buffer('is_diagonal', place == place[:, None], persistent=False)
        self.set_accuracy(teacher_accuracy)

    def set_accuracy(self, teacher_accuracy: float) -> None:
        """Set a; a learned diagonal keeps what it has learned.

        Raises:
            UsageError: It is not in (0, 1], or leaves a learned diagonal no room.
        """
        if not 0 < teacher_accuracy <= 1:
            share = f', such as {teacher_accuracy / 100:.4g}' if 1 < teacher_accuracy <= 100 else ''
            raise UsageError(
                f"model.teacher_accuracy is {teacher_accuracy}; give the teacher's accuracy as a "
                f'share in (0, 1]{share}.'
            )
        if self.diagonal_shift is not None and teacher_accuracy == 1:
            raise UsageError(
                "model.teacher_accuracy is 1, from where a diagonal='learned' cannot move. Give a "
                "number below 1, or diagonal='fixed'."
            )
        self.accuracy.fill_(teacher_accuracy)

    def forward(self) -> Tensor:
        """Q ``(K, K)``: row = true class, column = pseudo-label; entries in [0, 1]."""
        return self.log().exp()

    def log(self) -> Tensor:
        """The logarithms of Q ``(K, K)``; finite, but for a = 1, where errors have none."""
        odds = self.accuracy.logit()  # ln(a / (1 - a))
        if self.diagonal_shift is not None:
            odds = (odds + self.diagonal_shift)[:, None]
        right, wrong = F.logsigmoid(odds), F.logsigmoid(-odds)  # ln a and ln (1 - a)
        errors = wrong + self.weight.log_softmax(1)
        return torch.where(self.is_diagonal, right, errors.gather(1, self.columns))
