# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The two stages of a run with a GAN, and an eye on the first one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from mmdfkd.datasets import HybridDataset, HybridSampler
from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError
from mmdfkd.utils.files import write_npz

from ..runner.schedules import check_epochs
from .class_names import class_names
from .selection_hook import pool_of
from .synthesis_hook import facts_of


@HOOKS.register_module()
class GANHook(Hook):
    """Say which stage an epoch belongs to; while the GAN is trained, watch for over-fitting.

    The stage reaches the algorithm and the sampler before each epoch. After each epoch of the GAN
    the discriminator's mean score is logged on collected images it learns from, on held-out ones
    (the next best of the pool) and on generated ones: one that knows its images by heart gives
    high scores to them alone. In the end, scores and the classes the teacher saw are kept in
    ``gan.npz``, for their picture. Does nothing for algorithms without stages.

    Args:
        count: Images of each kind to score.
    """

    priority = 'HIGH'  # before whoever selects, synthesises or trains

    def __init__(self, count: int = 256) -> None:
        self.count = count

    def before_train(self, runner: Any) -> None:
        """Check that stages and images fit together."""
        self.staged = hasattr(runner.model, 'gan_epochs')
        if not self.staged:
            return
        model, loader = runner.model, runner.train_dataloader
        sampler = loader.batch_sampler.sampler
        if not isinstance(loader.dataset, HybridDataset) or not isinstance(sampler, HybridSampler):
            raise UsageError(
                f'{model.method} learns from collected and generated images. Set train_dataloader.'
                "dataset=dict(type='HybridDataset', collected=..., synthetic=...) and "
                "sampler=dict(type='HybridSampler')."
            )
        check_epochs(runner.train_loop, f'{model.method} trains its GAN in epochs')
        dataset, gan_epochs = loader.dataset, model.gan_epochs
        if gan_epochs > runner.max_epochs:
            raise UsageError(
                f'model.gan_epochs is {gan_epochs}, train_cfg.max_epochs {runner.max_epochs}. Give '
                'as many epochs or more; those beyond gan_epochs train the student.'
            )
        if gan_epochs and dataset.bank is None:
            raise UsageError(
                f'The GAN is trained for {gan_epochs} epochs, but its images have no place to go. '
                "Set train_dataloader.dataset.synthetic=dict(type='ImageBank'), or "
                'model.gan_epochs=0 to learn from the images there are.'
            )
        if not gan_epochs and dataset.bank is not None and not model.iteration:
            raise UsageError(
                'model.gan_epochs is 0, so nobody fills train_dataloader.dataset.synthetic. Give '
                "the images of an earlier run, dict(type='ImagePool', root='WORK_DIR/bank'), or "
                'load_from=CHECKPOINT of its GAN.'
            )
        schedulers = (runner.param_schedulers or {}).get('student', ())
        begins = [each.begin for each in schedulers if each.by_epoch]
        if begins and min(begins) != gan_epochs < runner.max_epochs:
            runner.logger.warning(
                f'The schedule of the student begins after {min(begins)} epochs, its training '
                f'after {gan_epochs} (model.gan_epochs). Set param_scheduler.student.0.begin, and '
                'train_cfg.val_begin, to fit.'
            )
        self._check_bank(runner, dataset)
        # The student's schedule counts epochs before its first step; PyTorch suspects a mistake.
        warnings.filterwarnings('ignore', message='Detected call of `scheduler')

    @staticmethod
    def _check_bank(runner: Any, dataset: HybridDataset) -> None:
        """Images of an earlier run must come from the same teacher and the same collection."""
        meta = getattr(dataset.synthetic, 'meta', {}) if dataset.bank is None else {}
        known = meta.get('bank')
        if not known or known.get('method') != runner.model.method:
            return
        own = facts_of(runner, names=[])
        own['selector'] = own['settings'].get('selector')
        known = dict(known, selector=known['settings'].get('selector'))
        for key in ('teacher', 'num_classes', 'collected', 'selector'):
            if known.get(key) != own[key]:
                raise UsageError(
                    f'The images in train_dataloader.dataset.synthetic were made with {key} '
                    f'{known.get(key)}, this run has {own[key]}: both stages need the same '
                    'teacher, pool and model.selector. Give the images that belong to this '
                    'config, or train a GAN of its own.'
                )

    def before_train_epoch(self, runner: Any) -> None:
        """Set the stage."""
        if not self.staged:
            return
        model, sampler = runner.model, runner.train_dataloader.batch_sampler.sampler
        stage = 'gan' if runner.epoch < model.gan_epochs else 'student'
        if runner.epoch in (0, model.gan_epochs):
            words = dict(gan='GAN', student='student')[stage]
            last = model.gan_epochs if stage == 'gan' else runner.max_epochs
            runner.logger.info(f'Epochs {runner.epoch + 1} to {last} train the {words}.')
            if stage == 'student':  # whose lines of the log are to have no losses of the GAN
                scalars = runner.message_hub.log_scalars
                for name in [n for n in scalars if n.startswith(('train/loss', 'train/gen'))]:
                    del scalars[name]
        sampler.stage = stage
        model.set_stage(stage)

    def after_train_epoch(self, runner: Any) -> None:
        """Score, log, warn."""
        if not self.staged or runner.model.stage != 'gan':
            return
        model, pool = runner.model, pool_of(runner)
        sampler = runner.train_dataloader.batch_sampler.sampler
        scores = dict(
            collected=model.score(pool.__getitems__(sampler.collected[: self.count])),
            generated=model.score_generated(self.count),
        )
        held_out = model.held_out[: self.count]
        if len(held_out):
            scores['held_out'] = model.score(pool.__getitems__(held_out))
        scalars = {f'score_{name}': value.item() for name, value in scores.items()}
        kept = runner.message_hub.runtime_info.get('gan_scores', [])
        runner.message_hub.update_info('gan_scores', [*kept, [runner.epoch + 1, scalars]])
        if runner.rank != 0:
            return
        runner.visualizer.add_scalars({**scalars, 'epoch': runner.epoch + 1}, step=runner.epoch + 1)
        text = ', '.join(f'{name} {value:.2f}' for name, value in scalars.items())
        runner.logger.info(f'Discriminator, mean scores: {text}.')
        unknown = scalars.get('score_held_out', 0.0)
        if scalars['score_collected'] > 1 and unknown < 0:
            runner.logger.warning(
                'The discriminator knows its collected images by heart: it takes them for real '
                f'(mean score {scalars["score_collected"]:.2f}) and held-out ones of the same pool '
                f'for fakes ({unknown:.2f}). Raise the weights of model.feature_integration, add '
                "dict(type='BatchRandomFlip') to model.gan_augment, or collect more images."
            )

    def after_train(self, runner: Any) -> None:
        """Keep what was seen, in ``gan.npz``."""
        records = runner.message_hub.runtime_info.get('gan_scores', [])
        if not self.staged or not records or runner.rank != 0:
            return
        model = runner.model
        names = ('collected', 'held_out', 'generated')
        scores = [[row.get(f'score_{name}', np.nan) for name in names] for _, row in records]
        classes = model.teacher.num_classes
        smoothing, labels = model.smoothing, model.pseudo_labels.cpu()
        chosen = runner.train_dataloader.batch_sampler.sampler.collected
        write_npz(
            Path(runner.work_dir, 'gan.npz'),
            epochs=np.array([epoch for epoch, _ in records]),
            scores=np.array(scores),
            pool=torch.bincount(labels, minlength=classes).numpy(),
            collected=torch.bincount(labels[chosen], minlength=classes).numpy(),
            earliest=smoothing.earliest.cpu().numpy(),
            latest=smoothing.latest.cpu().numpy(),
            classes=np.array(class_names(runner)),
        )
