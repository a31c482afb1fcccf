# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Collection of DFND: the images of whose class the teacher is most certain."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmdfkd.models.modules import gather_batch
from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils.errors import UsageError, check_choice, check_least

from .base import Selector
from .selection import Selection

_CHUNK_ROWS = 8192


def uncertainty(logits: Tensor) -> Tensor:
    r"""How uncertain a prediction is of its own class, DFND's score.

    .. math::
        v = \mathrm{CE}(t, \arg\max t) = -\ln \max_k \mathrm{softmax}(t)_k
          = \ln\Bigl(1 + \sum_{k \ne \arg\max t} e^{t_k - \max t}\Bigr)

    Ranking by it is ranking by the largest probability, not by the entropy of the prediction. The
    last form, in float64, tells images apart whose cross-entropy rounds to 0 in float32.

    Args:
        logits: ``(N, K)``.

    Returns:
        ``(N,)`` float64 in [0, ln K]; ln K where all logits are equal.
    """
    return torch.cat([_uncertainty(rows.double()) for rows in logits.split(_CHUNK_ROWS)])


def _uncertainty(logits: Tensor) -> Tensor:
    top, label = logits.max(1, keepdim=True)
    return (logits - top).scatter(1, label, -torch.inf).exp().sum(1).log1p()


def most_certain(scores: Tensor, logits: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` lowest scores, ascending.

    Where equal scores lie on both sides of the border, those whose logits come first in
    lexicographic order are kept, which has nothing to do with the pool's order; only images with
    identical logits are taken in that order. Such a tie is logged.

    Args:
        scores: ``(N,)``.
        logits: What they were computed from, ``(N, K)``.
        count: In [1, N].
    """
    border = scores.kthvalue(count).values
    kept = (scores < border).nonzero().flatten()
    tied = (scores == border).nonzero().flatten()
    missing = count - len(kept)
    if len(tied) > missing:
        print_log(
            f'Selection: {len(tied)} images tie at the border, v = {border:.3g}; kept are the '
            f'{missing} whose teacher logits come first in lexicographic order.',
            'current',
        )
        rows = logits[tied].numpy()
        tied = tied[torch.from_numpy(np.lexsort(rows.T[::-1]))]
    return torch.cat([kept, tied[:missing]]).sort().values


def most_certain_of_each(scores: Tensor, logits: Tensor, count: int, cap: int) -> Tensor:
    """Positions of ``count`` low scores, at most ``cap`` of a predicted class, ascending.

    Where that is fewer than ``count``, since some classes have few images, the lowest of the
    remaining scores follow, whatever their classes. Ties are broken as in :func:`most_certain`.

    Args:
        scores: ``(N,)``.
        logits: What they were computed from, ``(N, K)``.
        count: In [1, N].
        cap: 1 or more.
    """
    kept = torch.zeros(len(scores), dtype=torch.bool)
    labels = logits.argmax(1)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        best = most_certain(scores[members], logits[members], min(cap, len(members)))
        kept[members[best]] = True
    chosen = kept.nonzero().flatten()
    if len(chosen) >= count:
        return chosen[most_certain(scores[chosen], logits[chosen], count)]
    others = (~kept).nonzero().flatten()
    best = most_certain(scores[others], logits[others], count - len(chosen))
    return torch.cat([chosen, others[best]]).sort().values


@TASK_UTILS.register_module()
class ConfidenceSelector(Selector):
    """Keep the images with the lowest :func:`uncertainty`, with no quota of classes unless asked.

    Asked once, before the first epoch, and of the teacher only. Labels play no part. A pool of
    fewer than ``num_select`` images is used as a whole, which the log says: recipes of papers name
    a number for pools of a million.

    Args:
        num_select: How many images to keep, such as the published 600,000 (of 1,281,167).
        keep_ratio: Share to keep instead, in (0, 1]; 0.5 where neither is given.
        class_cap: At most how many images of a class that the teacher sees, before the best of the
            others fill up what is missing; ``'even'`` is the number kept divided by that of the
            classes, rounded up (HiDFD). ``None`` asks for nothing of the kind (DFND).
        scope: ``'global'``: of the whole pool, once. ``'batch'``: of every training batch, see
            :meth:`in_batch`, which takes a ``keep_ratio``; of our methods DFND does so.
        index_file: ``.npz`` file to keep the selection in from run to run, with the scores, the
            teacher's fingerprint, the pool's content hash, the normalisation and the number kept.
            A file that fits is used instead of predicting the pool; another one is refused.
    """

    once = True

    def __init__(
        self,
        num_select: int | None = None,
        keep_ratio: float | None = None,
        class_cap: int | Literal['even'] | None = None,
        scope: Literal['global', 'batch'] = 'global',
        index_file: str | os.PathLike | None = None,
    ) -> None:
        check_choice('model.selector.scope', scope, ('global', 'batch'))
        if num_select is not None and keep_ratio is not None:
            raise UsageError(
                f'model.selector has num_select={num_select} and keep_ratio={keep_ratio}, which '
                'say the same thing twice. Give one of them.'
            )
        check_least('model.selector.num_select', num_select, 1)
        if keep_ratio is not None and not 0 < keep_ratio <= 1:
            raise UsageError(f'model.selector.keep_ratio is {keep_ratio}; it must lie in (0, 1].')
        if class_cap not in (None, 'even') and not (isinstance(class_cap, int) and class_cap > 0):
            raise UsageError(
                f"model.selector.class_cap is {class_cap!r}; give 'even', or 1 image or more."
            )
        whole_pool = (num_select, index_file, class_cap)
        if scope == 'batch' and any(value is not None for value in whole_pool):
            raise UsageError(
                "model.selector.scope='batch' keeps a share of every batch, so there is neither a "
                'num_select nor a class_cap nor an index_file. Give keep_ratio.'
            )
        if index_file is not None and Path(index_file).suffix != '.npz':
            raise UsageError(
                f"model.selector.index_file is '{index_file}'; let its name end in .npz."
            )
        self.num_select = num_select
        self.keep_ratio = 0.5 if keep_ratio is None else keep_ratio
        self.class_cap = class_cap
        self.index_file = None if index_file is None else Path(index_file).expanduser()
        self.by_batch = scope == 'batch'
        self.needs = () if self.by_batch else ('teacher',)

    def count(self, available: int) -> int:
        """How many of so many images are kept."""
        wanted = self.num_select or max(1, round(self.keep_ratio * available))
        return min(wanted, available)

    def settings(self, pool_size: int) -> dict[str, Any]:
        """The number kept, and of a class."""
        capped = {} if self.class_cap is None else dict(class_cap=self.class_cap)
        return dict(num_select=self.count(pool_size), **capped)

    def __call__(
        self, *, pool_size: int, teacher_logits: Tensor | None = None, **ignored: object
    ) -> Selection:
        """Select from a pool of ``pool_size`` images.

        Args:
            pool_size: N.
            teacher_logits: ``(N, K)`` of the whole pool; not needed with ``scope='batch'``, where
                every image stays.
            ignored: What other selectors want.

        Raises:
            UsageError: The teacher's prediction of an image is not finite.
        """
        if teacher_logits is None:
            return Selection(torch.arange(pool_size))
        broken = pool_size - int(teacher_logits.isfinite().all(1).sum())
        if broken:
            raise UsageError(
                f'The teacher predicts no finite logits for {broken:,} of {pool_size:,} pool '
                'images. Check its checkpoint (model.teacher.checkpoint) and normalisation.'
            )
        scores = uncertainty(teacher_logits)
        if self.num_select is not None and self.num_select > pool_size:
            print_log(
                f'Selection: the pool has {pool_size:,} images, fewer than the '
                f'{self.num_select:,} of model.selector.num_select; all are used.',
                'current',
                logging.WARNING,
            )
        labels = teacher_logits.argmax(1)
        return Selection(
            indices=self._best(scores, teacher_logits),
            confidence=(-scores).exp().float(),
            pseudo_labels=labels,
            counts=torch.bincount(labels, minlength=teacher_logits.shape[1]),
            scores=scores.float(),
        )

    def _best(self, scores: Tensor, logits: Tensor) -> Tensor:
        count, classes = self.count(len(scores)), logits.shape[1]
        if self.class_cap is None:
            return most_certain(scores, logits, count)
        cap = -(-count // classes) if self.class_cap == 'even' else self.class_cap
        return most_certain_of_each(scores, logits, count, cap)

    @torch.no_grad()
    def in_batch(self, teacher_logits: Tensor) -> Tensor:
        """Mark the most certain images of a batch, of all processes together.

        Args:
            teacher_logits: Of this process, ``(B, K)``.

        Returns:
            ``(B,)`` float32, 1 for images that are kept, 0 for others.
        """
        scores = gather_batch(uncertainty(teacher_logits))
        kept = torch.zeros_like(scores, dtype=torch.float32)
        kept[scores.topk(self.count(len(scores)), largest=False).indices] = 1
        return kept.chunk(get_world_size())[get_rank()]
