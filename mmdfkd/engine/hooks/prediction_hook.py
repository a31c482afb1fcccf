# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a test leaves: predictions in a file, mistakes and confusions in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.registry import HOOKS
from mmdfkd.utils.files import write_json

UNKNOWN = -1  # the label of an image without one


@HOOKS.register_module()
class PredictionHook(Hook):
    """Collect the predictions of a test.

    Args:
        out: JSON file for metrics, predictions, labels (null where the images have none) and
            confidences, in the dataset's order.
        show_dir: Folder for ``mistakes.png``, wrongly classified images with truth, prediction and
            confidence, and for ``confusion.png``, how often each class is taken for each.
        most: At most how many mistakes to draw, evenly from all of them.
    """

    def __init__(self, out: str | None = None, show_dir: str | None = None, most: int = 60) -> None:
        self.out = out
        self.show_dir = show_dir
        self.most = most
        self.rows: list[Tensor] = []
        self.num_classes = 0

    def before_test_epoch(self, runner: Any) -> None:
        """Start afresh."""
        self.rows = []

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[dict] | None = None,
    ) -> None:
        """Keep index, label, prediction and confidence of a batch."""
        for batch in outputs or ():
            self.num_classes = batch['logits'].shape[1]
            confidence, prediction = batch['logits'].softmax(1).max(1)
            label = batch.get('label', torch.full_like(prediction, UNKNOWN))
            columns = (batch['index'], label, prediction, confidence)
            self.rows.append(torch.stack([column.double().cpu() for column in columns], 1))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write what was asked for."""
        from mmdfkd.visualization import plot_confusion

        table = torch.cat([torch.cat(part) for part in all_gather_object(self.rows) if part])
        table = table[table[:, 0].argsort()]
        index, label, prediction = table[:, :3].long().T
        if runner.rank != 0:
            return
        labelled = bool((label != UNKNOWN).all())
        if self.out:
            content = dict(
                metrics=metrics,
                predictions=prediction.tolist(),
                labels=label.tolist() if labelled else None,
                confidences=[round(c, 6) for c in table[:, 3].tolist()],
            )
            write_json(self.out, content)
            runner.logger.info(f'Wrote {self.out}.')
        if self.show_dir and not labelled:
            runner.logger.info('Nothing to draw: the images have no labels.')
        elif self.show_dir:
            known = runner.test_dataloader.dataset.metainfo['classes'] or range(self.num_classes)
            names, folder = [str(name) for name in known], Path(self.show_dir)
            path = plot_confusion(folder / 'confusion.png', label, prediction, names)
            runner.logger.info(f'Wrote {path}.')
            path = folder / 'mistakes.png'
            self._draw_mistakes(runner, path, names, index, label, prediction, table[:, 3])

    def _draw_mistakes(
        self,
        runner: Any,
        path: Path,
        names: list[str],
        index: Tensor,
        label: Tensor,
        prediction: Tensor,
        confidence: Tensor,
    ) -> None:
        from mmdfkd.visualization import save_image_grid

        wrong = (label != prediction).nonzero().flatten()
        if not len(wrong):
            runner.logger.info('No mistake to draw: every test image is classified correctly.')
            return
        mistakes, shown = len(wrong), min(self.most, len(wrong))
        wrong = wrong[torch.arange(shown) * mistakes // shown]  # a folder is sorted by class
        captions = [
            f'{names[label[i]]}, not {names[prediction[i]]}\n{confidence[i]:.2f}' for i in wrong
        ]
        images = runner.test_dataloader.dataset.images[index[wrong].numpy()]
        save_image_grid(path, images, min(10, len(images)), captions, upscale=4)
        runner.logger.info(f'Wrote {path} with {shown:,} of {mistakes:,} mistakes.')
