# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How good the student is, and how like its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mmdfkd.registry import METRICS
from mmdfkd.utils import UsageError
from mmdfkd.utils.errors import check_choice


class ShareMetric(BaseMetric):
    """A percentage of images, counted per batch without a loop over them.

    The counts of a batch stay on its device, and are read once when all batches are over.

    Args:
        collect_device: How processes exchange what they counted: ``'gpu'``, by the network, as
            training does, with or without a GPU; or ``'cpu'``, by files in ``.dist_test``, which
            all machines must see.
        prefix: First part of the metric's name.
    """

    results: list[dict[str, Any]]
    names: tuple[str, ...]  # of what is reported, behind the prefix

    def __init__(self, collect_device: str = 'gpu', prefix: str | None = None) -> None:
        check_choice('collect_device of a metric', collect_device, ('gpu', 'cpu'))
        super().__init__(collect_device, prefix)

    def evaluate(self, size: int) -> dict[str, float]:
        """Exchange the counts of all processes and turn them into percentages."""
        counts: dict[str, int] = {}  # of a process that had no image
        if self.results:
            sums = torch.stack([torch.stack(list(r.values())) for r in self.results]).sum(0)
            counts = dict(zip(self.results[0], sums.tolist(), strict=True))
        self.results = [counts]
        return super().evaluate(size)

    def compute_metrics(self, results: list[dict[str, int]]) -> dict[str, float]:
        """Turn counts of processes into percentages; of nothing where none counted."""
        results = [result for result in results if result]
        if not results:
            return {}
        total = sum(r['total'] for r in results)
        names = [name for name in results[0] if name != 'total']
        return {name: 100 * sum(r[name] for r in results) / total for name in names}


def without_labels(split: str = 'val') -> UsageError:
    """What is wrong where an accuracy is asked for.

    Args:
        split: Whose images they are: ``'val'`` or ``'test'``.
    """
    return UsageError(
        f'The Accuracy metric needs labels and the images of {split}_dataloader have none. Use '
        f"{split}_evaluator=[dict(type='Agreement')], or evaluate on a labelled dataset (distill() "
        'takes evaluation=(images, labels)).'
    )


@METRICS.register_module()
class Accuracy(ShareMetric):
    """Top-k accuracy of the student in percent.

    Where a method evaluates another network too, under ``<network>_logits``, its accuracy is
    ``accuracy/<network>_top1``.

    Args:
        topk: Which k to report, one or several; ``accuracy/top1`` and so on.
        collect_device: How processes exchange what they counted: ``'gpu'``, by the network, with
            or without a GPU; or ``'cpu'``, by files that all machines must see.
        prefix: First part of the metric's name; ``accuracy`` by default.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: int | Sequence[int] = (1,),
        collect_device: str = 'gpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        self.names = tuple(f'top{k}' for k in self.topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the hits of whole batches: ``*logits`` ``(B, K)`` against ``label`` ``(B,)``."""
        for batch in data_samples:
            if 'label' not in batch:
                raise without_labels()
            label = batch['label']
            counts = {'total': label.new_full((), len(label))}
            for name in [name for name in batch if name == 'logits' or name.endswith('_logits')]:
                logits = batch[name]
                count = min(max(self.topk), logits.shape[1])
                best = count == 1  # of equal ones the first, as Agreement has it
                ranked = logits.argmax(1, True) if best else logits.topk(count, 1).indices
                hit = ranked == label[:, None]
                network = name.removesuffix('logits')  # '' is the student
                counts |= {f'{network}top{k}': hit[:, :k].sum() for k in self.topk}
            self.results.append(counts)


@METRICS.register_module()
class Agreement(ShareMetric):
    """Share of images where student and teacher predict the same class, in percent.

    Needs no labels. Reports nothing where there is no teacher.

    Args:
        collect_device: As of :class:`Accuracy`.
        prefix: First part of the metric's name; ``agreement`` by default.
    """

    default_prefix = 'agreement'
    names = ('teacher',)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Compare ``logits`` ``(B, K)`` with ``teacher_prediction`` ``(B,)``."""
        for batch in data_samples:
            if 'teacher_prediction' in batch:
                same = batch['logits'].argmax(1) == batch['teacher_prediction']
                agreeing = same.sum()
                total = agreeing.new_full((), len(same))
                self.results.append(dict(total=total, teacher=agreeing))
