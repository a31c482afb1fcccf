# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Choosing the pool images that count, before each epoch or once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.datasets import HybridDataset, PackedDataset
from mmdfkd.models.selectors import Selection
from mmdfkd.models.selectors.index_file import read_index, write_index
from mmdfkd.registry import HOOKS
from mmdfkd.utils.errors import UsageError, check_choice, check_least, shorten
from mmdfkd.utils.files import write_npz
from mmdfkd.utils.seeds import random_numbers_apart

from ..first_process import on_first_process
from ..prediction import LogitsCache, predict_logits
from ..runner.schedules import check_epochs
from .class_names import class_names


@HOOKS.register_module()
class SelectionHook(Hook):
    """Ask the algorithm's selector which images of the training pool to use.

    Only indices change: dataset, loader and workers persist. The selector says whose predictions it
    needs and how often it wants to be asked, see ``Selector``. In distributed runs each process
    predicts its part of the pool and all of them select from the whole, so counts and thresholds
    are global. An algorithm without a selector uses the whole pool; one with a method
    ``remember_selection`` is told of each. The last selection is kept in ``selection.npz``,
    for figures and analysis.

    Args:
        interval: Epochs between two selections; above 1 an approximation that saves time. Of no
            consequence for a selector that is asked once.
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
        check_least('default_hooks.selection.interval', interval, 1)
        self.interval = interval
        self.view = view
        self.batch_size = batch_size
        self.cache = LogitsCache(batch_size=batch_size)
        self.teacher_logits: Tensor | None = None
        self.selection: Selection | None = None
        self.told: Selection | None = None  # what the algorithm knows

    def before_train(self, runner: Any) -> None:
        """A selector needs a sampler that can be told, a resumed selection its pool."""
        selector, pool = runner.model.selector, pool_of(runner)
        if selector is None:
            return
        if not isinstance(pool, PackedDataset):
            raise UsageError(
                f'{type(selector).__name__} selects from a PackedDataset, and '
                f'train_dataloader.dataset is a {type(pool).__name__}. Derive it from '
                'PackedDataset, or pack its images into a pool.'
            )
        if not selector.once:
            check_epochs(runner.train_loop, f'{type(selector).__name__} selects before each epoch')
        sampler = runner.train_dataloader.batch_sampler.sampler
        if not hasattr(sampler, 'select'):
            raise UsageError(
                f'train_dataloader.sampler is a {type(sampler).__name__}, which cannot pass over a '
                "selection. Use sampler=dict(type='SelectionSampler')."
            )
        if selector.index_file is not None and self.view == 'train':
            raise UsageError(
                f"default_hooks.selection.view='train' predicts random views, so its selection is "
                f'not kept in {selector.index_file}. Leave out model.selector.index_file, or view.'
            )
        if self.selection is None or not runner.iter:
            return
        known = len(self.selection.confidence)
        if known not in (0, len(pool)):
            raise UsageError(
                f'The checkpoint goes on with a selection from {known:,} pool images, '
                f'train_dataloader.dataset has {len(pool):,}. Resume with the pool of the run.'
            )
        if selector.once:
            runner.logger.info(
                f'Goes on with the selection of {len(self.selection.indices):,} images in the '
                'checkpoint.'
            )
            self._tell(runner, self.selection)  # there may be no epoch left

    def before_train_epoch(self, runner: Any) -> None:
        """Select, tell the sampler and the algorithm, log."""
        model = runner.model
        if model.selector is None:
            return
        due = runner.iter == 0 if model.selector.once else runner.epoch % self.interval == 0
        if self.selection is None or due:
            self.selection = self._select(runner)
            self._log(runner, self.selection)
        self._tell(runner, self.selection)

    def _tell(self, runner: Any, selection: Selection) -> None:
        """Tell the sampler, and the algorithm unless it knows."""
        model, loader = runner.model, runner.train_dataloader
        batch_size = loader.batch_size or loader.batch_sampler.batch_size
        loader.batch_sampler.sampler.select(selection.indices, batch_size)
        if selection is not self.told and hasattr(model, 'remember_selection'):
            model.remember_selection(selection)
        self.told = selection

    def _select(self, runner: Any) -> Selection:
        selector, pool = runner.model.selector, pool_of(runner)
        path = selector.index_file
        if path is not None:
            facts = self._facts(runner)
            # One process reads it for all: machines need not share the folder.
            known = on_first_process(lambda: read_index(path, facts))
            if known is not None:
                runner.logger.info(f'Took the selection from {path}.')
                return known
        selection = selector(
            pool_size=len(pool),
            epoch=runner.epoch + 1,
            max_epochs=runner.max_epochs,
            **self._predict(runner),
        )
        _check(selection, selector, len(pool))
        broadcast(selection.indices)  # ranks draw differently, all use the same images
        if selector.once:
            self.teacher_logits = None  # they have done their work, and may be large
        if path is not None and runner.rank == 0:
            write_index(path, selection, facts)
        return selection

    def _facts(self, runner: Any) -> dict[str, Any]:
        """What a selection depends on."""
        model, pool = runner.model, pool_of(runner)
        return dict(
            teacher=model.teacher_fingerprint(),
            pool=pool.content_hash,
            mean=model.data_preprocessor.mean.flatten().tolist(),
            std=model.data_preprocessor.std.flatten().tolist(),
            num_classes=model.student.num_classes,
            selector=type(model.selector).__name__,
            **model.selector.settings(len(pool)),
        )

    def _predict(self, runner: Any) -> dict[str, Tensor]:
        """The logits that the selector needs."""
        model, pool = runner.model, pool_of(runner)
        preprocessor, augment = model.data_preprocessor, self.view == 'train'
        logits = {}
        if 'teacher' in model.selector.needs:
            if augment:  # the student below draws the same views
                with random_numbers_apart():
                    logits['teacher_logits'] = predict_logits(
                        model.teacher, pool, preprocessor, self.batch_size, augment
                    )
            else:
                if self.teacher_logits is None:
                    self.teacher_logits = self.cache.get(model.teacher, pool, preprocessor)
                logits['teacher_logits'] = self.teacher_logits
        if 'student' in model.selector.needs:
            logits['student_logits'] = predict_logits(
                model.student, pool, preprocessor, self.batch_size, augment
            )
        if len(logits) == 2:
            distance = F.pairwise_distance(logits['student_logits'], logits['teacher_logits'])
            runner.message_hub.update_scalar('train/logit_distance', distance.mean().item())
        return logits

    def after_train(self, runner: Any) -> None:
        """Write the last selection's fields, and names of the classes, to ``selection.npz``."""
        if self.selection is None or runner.rank != 0:
            return
        names = np.array(class_names(runner))
        path = Path(runner.work_dir, 'selection.npz')
        write_npz(path, classes=names, **self.selection._asdict())

    @staticmethod
    def _log(runner: Any, selection: Selection) -> None:
        size = len(pool_of(runner))
        share = len(selection.indices) / size
        scalars = dict(selected=len(selection.indices), selected_share=share)
        text = f'Selected {len(selection.indices):,} of {size:,} pool images ({share:.1%})'
        if len(selection.counts):
            chosen = selection.pseudo_labels[selection.indices]
            counts = torch.bincount(chosen, minlength=len(selection.counts))
            per_class = counts.tolist()
            if math.isfinite(selection.student_weight):
                scalars['student_weight'] = selection.student_weight
                text += f', a(t) = {selection.student_weight:.3f}'
            scalars['mean_confidence'] = selection.confidence.mean().item()
            if len(selection.scores):
                text += f', confidence at least {selection.confidence[selection.indices].min():.3f}'
            text += f', per class {per_class[:20]}'
            hub = runner.message_hub
            hub.update_info('selected_per_class', per_class)
            hub.update_info('predicted_per_class', selection.counts.tolist())
            hub.update_info('thresholds', selection.thresholds.tolist())
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        runner.visualizer.add_scalars({**scalars, 'epoch': runner.epoch + 1}, step=runner.epoch + 1)
        runner.logger.info(text)
        if runner.model.selector.once and len(selection.counts):
            _warn_of_absent(runner, counts)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keep a selection that outlives its epoch."""
        once = runner.model.selector is not None and runner.model.selector.once
        if self.selection is not None and (self.interval > 1 or once):
            details = self.selection._asdict()
            checkpoint['selected_indices'] = details.pop('indices')
            checkpoint['selection_details'] = details

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take up a selection that outlives its epoch."""
        if 'selected_indices' in checkpoint:
            fields: dict[str, Any] = dict(
                checkpoint.get('selection_details', {}), indices=checkpoint['selected_indices']
            )
            for name, value in fields.items():
                fields[name] = value.cpu() if isinstance(value, Tensor) else value
            self.selection = Selection(**fields)


def pool_of(runner: Any) -> Any:
    """What is selected from: the training set, or the collected part of a hybrid one."""
    dataset = runner.train_dataloader.dataset
    return dataset.collected if isinstance(dataset, HybridDataset) else dataset


def _check(selection: Any, selector: Any, size: int) -> None:
    """A selector gives positions in the pool; a mask would be taken for the positions 0 and 1."""
    name = type(selector).__name__
    if not isinstance(selection, Selection):
        raise UsageError(
            f'{name} gave a {type(selection).__name__}. Return Selection(indices) from __call__.'
        )
    found = selection.indices
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or found.ndim != 1:
        kind = f'{found.dtype} of shape {tuple(found.shape)}' if isinstance(found, Tensor) else ''
        raise UsageError(
            f'The indices that {name} gave are {kind or type(found).__name__}, and should be '
            'positions in the pool, int64 (M,). Turn a mask into them by mask.nonzero().flatten().'
        )
    if not len(found):
        raise UsageError(f'{name} selected no image of {size:,}. Make it less strict.')
    first, last = int(found.min()), int(found.max())
    if first < 0 or last >= size:
        raise UsageError(
            f'{name} selected images from {first} to {last}, the pool has those from 0 to '
            f'{size - 1}. Give positions in the pool.'
        )


def _warn_of_absent(runner: Any, counts: Tensor) -> None:
    """Say which classes a selection for the whole run has no image of."""
    names = class_names(runner)
    absent = [names[label] for label in (counts == 0).nonzero().flatten().tolist()]
    if absent:
        runner.logger.warning(
            f'No selected image is of class {shorten(absent)} to the teacher ({len(absent)} of '
            f'{len(counts)} classes), so the student hardly learns them. Select more images '
            '(model.selector), or collect some of these classes.'
        )
