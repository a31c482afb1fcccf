# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Choosing the pool images that count, before each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.models.selectors import Selection
from mmdfkd.registry import HOOKS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.files import atomic_path

from ..prediction import LogitsCache, predict_logits


@HOOKS.register_module()
class SelectionHook(Hook):
    """Ask the algorithm's selector which images of the training pool to use.

    Only indices change: dataset, loader and workers persist. In distributed runs each process
    predicts its part of the pool and all of them select from the whole, so counts and thresholds
    are global. An algorithm without a selector uses the whole pool. The last selection is kept in
    ``selection.npz``, for figures and analysis.

    Args:
        interval: Epochs between two selections; above 1 an approximation that saves time.
        view: ``'plain'``: predict un-augmented images, whose teacher logits are computed once and
            cached. ``'train'``: predict a new random training view each time (published KD³).
        batch_size: Images per forward pass.
    """

    priority = 'ABOVE_NORMAL'  # before the timer, which takes the time of steps

    def __init__(
        self,
        interval: int = 1,
        view: Literal['plain', 'train'] = 'plain',
        batch_size: int = 512,
    ) -> None:
        check_choice('default_hooks.selection.view', view, ('plain', 'train'))
        self.interval = interval
        self.view = view
        self.batch_size = batch_size
        self.cache = LogitsCache(batch_size=batch_size)
        self.teacher_logits: Tensor | None = None
        self.selection: Selection | None = None

    def before_train(self, runner: Any) -> None:
        """A selector needs a sampler that can be told."""
        sampler = runner.train_dataloader.batch_sampler.sampler
        if runner.model.selector is not None and not hasattr(sampler, 'select'):
            raise UsageError(
                f'train_dataloader.sampler is a {type(sampler).__name__}, which cannot pass over a '
                "selection. Use sampler=dict(type='SelectionSampler')."
            )

    def before_train_epoch(self, runner: Any) -> None:
        """Select, tell the sampler, log."""
        if runner.model.selector is None:
            return
        if self.selection is None or runner.epoch % self.interval == 0:
            self.selection = self._select(runner)
            self._log(runner, self.selection)
        loader = runner.train_dataloader
        batch_size = loader.batch_size or loader.batch_sampler.batch_size
        loader.batch_sampler.sampler.select(self.selection.indices, batch_size)

    def _select(self, runner: Any) -> Selection:
        model, pool = runner.model, runner.train_dataloader.dataset
        arguments = dict(pool_size=len(pool), epoch=runner.epoch + 1, max_epochs=runner.max_epochs)
        if model.selector.needs_predictions:
            preprocessor, augment = model.data_preprocessor, self.view == 'train'
            if augment:  # the student below draws the same views
                with torch.random.fork_rng(devices=_devices()):
                    teacher = predict_logits(
                        model.teacher, pool, preprocessor, self.batch_size, augment
                    )
            else:
                if self.teacher_logits is None:
                    self.teacher_logits = self.cache.get(model.teacher, pool, preprocessor)
                teacher = self.teacher_logits
            student = predict_logits(model.student, pool, preprocessor, self.batch_size, augment)
            arguments.update(teacher_logits=teacher, student_logits=student)
            distance = F.pairwise_distance(student, teacher).mean().item()
            runner.message_hub.update_scalar('train/logit_distance', distance)
        selection = model.selector(**arguments)
        broadcast(selection.indices)  # ranks draw differently, all use the same images
        return selection

    def after_train(self, runner: Any) -> None:
        """Write the last selection's fields, and names of the classes, to ``selection.npz``."""
        if self.selection is None or runner.rank != 0:
            return
        known = runner.val_dataloader.dataset.metainfo if runner.val_loop is not None else {}
        names = known.get('classes') or [str(i) for i in range(runner.model.student.num_classes)]
        path = Path(runner.work_dir, 'selection.npz')
        with atomic_path(path) as temporary, temporary.open('wb') as file:
            np.savez_compressed(file, classes=np.array(names), **self.selection._asdict())

    @staticmethod
    def _log(runner: Any, selection: Selection) -> None:
        size = len(runner.train_dataloader.dataset)
        share = len(selection.indices) / size
        scalars = dict(selected=len(selection.indices), selected_share=share)
        text = f'Selected {len(selection.indices):,} of {size:,} pool images ({share:.1%})'
        if len(selection.counts):
            chosen = selection.pseudo_labels[selection.indices]
            per_class = torch.bincount(chosen, minlength=len(selection.counts)).tolist()
            scalars.update(
                student_weight=selection.student_weight,
                mean_confidence=selection.confidence.mean().item(),
            )
            text += f', a(t) = {selection.student_weight:.3f}, per class {per_class[:20]}'
            hub = runner.message_hub
            hub.update_info('selected_per_class', per_class)
            hub.update_info('predicted_per_class', selection.counts.tolist())
            hub.update_info('thresholds', selection.thresholds.tolist())
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        runner.visualizer.add_scalars({**scalars, 'epoch': runner.epoch + 1}, step=runner.epoch + 1)
        runner.logger.info(text)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keep a selection that outlives its epoch."""
        if self.selection is not None and self.interval > 1:
            checkpoint['selected_indices'] = self.selection.indices

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take up a selection that outlives its epoch."""
        if 'selected_indices' in checkpoint:
            self.selection = Selection(checkpoint['selected_indices'].cpu())


def _devices() -> list[int]:
    """The GPU whose generator draws, if there is one."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
