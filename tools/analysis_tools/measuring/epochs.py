# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Whole epochs of KD³: selection, steps and all around them, against the authors' arithmetic."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from floors import KD3Floor, PublishedKD3, check_floor  # beside this folder
from torch import nn

from mmdfkd.engine.hooks import SelectionHook
from mmdfkd.models.backbones import LeNet5

from .runners import build_runner
from .timing import Clock, InterleaveHook, compare, error, median, ratio

FAST = {
    'optim_wrapper.student.type': 'AutocastOptimWrapper',
    'default_hooks.speed.fold_teacher': True,
    'default_hooks.speed.channels_last': True,
    'default_hooks.speed.small_convs': True,
    'optim_wrapper.student.optimizer.fused': True,
}
COMPILED = {'default_hooks.speed.compile': ['teacher', 'student']}
ONE_TERM = {'model.teacher_term': False}
#: What an epoch of ours differs in from the recipe, as ``--cfg-options`` say it.
MODES: dict[str, dict[str, Any]] = {
    'strict': {},
    'fast': FAST,
    'fast, no teacher term': FAST | ONE_TERM,
    'fast, no teacher term, compiled': FAST | ONE_TERM | COMPILED,
}
PUBLISHED = 'published'


def measure_epochs(
    args: argparse.Namespace, clock: Clock, folder: str, batch: int
) -> Iterator[dict[str, Any]]:
    """Rows of our modes, and of the published code's form of the same epoch.

    *Authors* is the arithmetic of the published code: float32, its layers, images in NCHW, a
    selection pass of both networks over random views each epoch, both contrastive terms.
    *Published* also has its loops over images and the graph of its selection pass. All learn from
    the whole pool.
    """
    blocks = (args.pairs + 1) * (args.images // batch // args.iterations)
    for mode in args.modes:
        runner = build_runner(args, folder, 'KD3', batch, blocks, MODES.get(mode))
        model, pool = runner.model, runner.train_dataloader.dataset
        model.selector.threshold = 0.0  # every image beats it
        next(h for h in runner.hooks if isinstance(h, SelectionHook)).cache.folder = Path(folder)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        kinds = [KD3Floor, PublishedKD3] if mode == PUBLISHED else [KD3Floor]
        floors = [kind(model, runner.optim_wrapper) for kind in kinds]
        data = {name: value.to(args.device) for name, value in pool.__getitems__(range(8)).items()}
        for floor in floors:
            use_published_layers(floor.model)
            use_plain_optimizers(floor)
            if model.teacher_term:
                check_floor(model, floor, data)
        epochs = [functools.partial(run_epoch, each, pool, batch, args.device) for each in floors]
        if mode == PUBLISHED:
            times = compare(clock, args.pairs, authors=epochs[0], runner=epochs[1])
        else:
            follow = functools.partial(floors[0].follow, model)
            hook = InterleaveHook(clock, None, dict(authors=epochs[0]), follow)
            runner.register_hook(hook)
            runner.train()
            times = {name: values[-args.pairs :] for name, values in hook.times.items()}
        yield {
            'epoch': mode,
            'batch': batch,
            '/authors': ratio(times['runner'], times['authors']),
            '+-': error(times['runner'], times['authors']),
            'us/image': 1e6 * median(times['runner']) / len(pool),
            'authors us/image': 1e6 * median(times['authors']) / len(pool),
        }


def use_published_layers(network: nn.Module) -> None:
    """Give every LeNet5 torch's pooling, behind the ReLU."""
    for backbone in network.modules():
        if isinstance(backbone, LeNet5):
            layers: Any = backbone.layers
            for pooling in (1, 4):
                layers[pooling], layers[pooling + 1] = layers[pooling + 1], nn.MaxPool2d(2)


def use_plain_optimizers(floor: KD3Floor) -> None:
    """Let torch choose how an optimiser goes through its parameters, whatever our mode says."""
    for role, optimizer in floor.optimizers.items():
        settings = {**optimizer.defaults, 'fused': None, 'foreach': None}
        floor.optimizers[role] = type(optimizer)(floor.parameters[role], **settings)


def run_epoch(floor: KD3Floor, pool: Any, batch: int, device: str) -> None:
    """An epoch of the published recipe: select from random views, then learn from others."""

    def views(indices: torch.Tensor) -> torch.Tensor:
        data = pool.__getitems__(indices)
        there = {name: value.to(device, non_blocking=True) for name, value in data.items()}
        images = floor.prepare(there)
        return images.clone(memory_format=torch.contiguous_format)  # the layout of their loader

    floor.select(views(part) for part in torch.arange(len(pool)).split(batch))
    for part in torch.randperm(len(pool)).split(batch):
        floor.step(views(part))
