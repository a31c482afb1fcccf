# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Whole epochs of KD³: selection, steps and all around them, against the authors' arithmetic."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from floors import KD3Floor, PublishedKD3, check_floor  # beside this folder
from mmengine.hooks import Hook

from mmdfkd.engine.hooks import SelectionHook

from .runners import build_runner
from .timing import Clock, median, ratio

FAST = {
    'optim_wrapper.student.type': 'AutocastOptimWrapper',
    'default_hooks.speed.fold_teacher': True,
    'default_hooks.speed.channels_last': True,
}
COMPILED = {'default_hooks.speed.compile': ['teacher', 'student']}
ONE_TERM = {'model.teacher_term': False}
#: What our epoch differs in from the recipe, as ``--cfg-options`` say it.
MODES: dict[str, dict[str, Any]] = {
    'strict': {},
    'fast': FAST,
    'fast, no teacher term': FAST | ONE_TERM,
    'fast, no teacher term, compiled': FAST | ONE_TERM | COMPILED,
}


class EpochHook(Hook):
    """Stop a Runner's clock after every epoch and let its rivals run one.

    Of the Runner everything is on its clock, from the selection to the last hook of the epoch.
    """

    priority = 'LOWEST'

    def __init__(
        self, clock: Clock, rivals: dict[str, Callable[[], None]], prepare: Callable[[], None]
    ) -> None:
        self.clock = clock
        self.rivals = rivals
        self.prepare = prepare
        self.times: dict[str, list[float]] = {name: [] for name in ('runner', *rivals)}

    def before_train(self, runner: Any) -> None:
        """Start."""
        self.started = self.clock()

    def after_train_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Let the others run, then go on."""
        self.times['runner'].append(self.clock() - self.started)
        self.prepare()
        for name, rival in self.rivals.items():
            self.times[name].append(self.clock.time(rival))
        self.started = self.clock()


def measure_epochs(
    args: argparse.Namespace, clock: Clock, folder: str, batch: int
) -> Iterator[dict[str, Any]]:
    """Rows of our modes.

    *Authors* is the arithmetic of the published code: float32, a selection pass of both networks
    over random views each epoch, both contrastive terms. *Published* also has its loops over images
    and the graph of its selection pass. All learn from the whole pool.
    """
    blocks = (args.pairs + 1) * (args.images // batch // args.iterations)
    for mode in args.modes:
        runner = build_runner(args, folder, 'KD3', batch, blocks, MODES[mode])
        model, pool = runner.model, runner.train_dataloader.dataset
        model.selector.threshold = 0.0  # every image beats it
        next(h for h in runner.hooks if isinstance(h, SelectionHook)).cache.folder = Path(folder)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        floors = dict(
            authors=KD3Floor(model, runner.optim_wrapper),
            published=PublishedKD3(model, runner.optim_wrapper),
        )
        data = {name: value.to(args.device) for name, value in pool.__getitems__(range(8)).items()}
        for floor in floors.values():
            if model.teacher_term:
                check_floor(model, floor, data)

        def follow(model: Any = model, floors: dict[str, KD3Floor] = floors) -> None:
            for floor in floors.values():
                floor.follow(model)

        rivals = {
            name: functools.partial(run_epoch, floor, pool, batch, args.device)
            for name, floor in floors.items()
        }
        hook = EpochHook(clock, rivals, follow)
        runner.register_hook(hook)
        runner.train()
        times = {name: values[-args.pairs :] for name, values in hook.times.items()}
        us = {name: 1e6 * median(values) / len(pool) for name, values in times.items()}
        yield {
            'mode': mode,
            'batch': batch,
            'ours/authors': ratio(times['runner'], times['authors']),
            'ours/published': ratio(times['runner'], times['published']),
            'ours us/image': us['runner'],
            'authors us/image': us['authors'],
            'published us/image': us['published'],
        }


def run_epoch(floor: KD3Floor, pool: Any, batch: int, device: str) -> None:
    """An epoch of the published recipe: select from random views, then learn from others."""

    def views(indices: torch.Tensor) -> torch.Tensor:
        data = pool.__getitems__(indices)
        return floor.prepare({name: value.to(device) for name, value in data.items()})

    floor.select(views(part) for part in torch.arange(len(pool)).split(batch))
    for part in torch.randperm(len(pool)).split(batch):
        floor.step(views(part))
