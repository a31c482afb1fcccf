# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a method does, against its floor: steps, selections, rounds of synthesis, validations."""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floors import FLOORS, check_floor, check_round  # beside this folder
from mmengine.runner import ValLoop
from torch import nn

from mmdfkd.datasets import PackedDataset
from mmdfkd.engine.hooks import SelectionHook
from mmdfkd.engine.synthesis import synthesize_round
from mmdfkd.models.selectors import Selection

from .runners import build_runner
from .timing import Clock, InterleaveHook, compare, error, median, ratio


def measure_step(
    args: argparse.Namespace, clock: Clock, folder: str, method: str, batch: int
) -> dict[str, Any]:
    """One training step: through the Runner, called directly, and its floor.

    The floor comes without and with the data road: gathering, augmenting and normalising batches.
    """
    runner = build_runner(args, folder, method, batch, blocks=args.pairs + 1)
    model = runner.model
    model.selector = None  # the whole pool
    pool = runner.train_dataloader.dataset
    if hasattr(model, 'set_stage'):  # which classes a GAN is told does not matter here
        labels = torch.randint(model.teacher.num_classes, (len(pool),))
        model.remember_selection(Selection(torch.arange(len(pool)), torch.rand(len(pool)), labels))
    order = torch.randint(len(pool), (8, batch))
    raw = [to_device(pool.__getitems__(part), args.device) for part in order]
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    floor = FLOORS[method](model, runner.optim_wrapper)
    # Times depend on the images, too: all get the same views.
    prepared = [floor.prepare(dict(part)) for part in raw]
    check_floor(model, floor, raw[0])

    def bare() -> None:
        for i in range(args.iterations):
            floor.step(prepared[i % len(prepared)])

    def bare_data() -> None:
        for i in range(args.iterations):
            floor.step(floor.prepare(pool.__getitems__(order[i % len(order)])))

    def train_step() -> None:
        for i in range(args.iterations):
            model.train_step(dict(raw[i % len(raw)]), runner.optim_wrapper)

    rivals = dict(bare=bare, bare_data=bare_data, train_step=train_step)
    prepare = functools.partial(floor.follow, model)
    hook = InterleaveHook(clock, args.iterations, rivals, prepare)
    runner.register_hook(hook)
    runner.train()
    times = {name: values[1 : args.pairs + 1] for name, values in hook.times.items()}
    ms = {name: 1e3 * median(values) / args.iterations for name, values in times.items()}
    return {
        'method': method,
        'batch': batch,
        'Runner/bare': ratio(times['runner'], times['bare']),
        '+-': error(times['runner'], times['bare']),
        'Runner/(bare+data)': ratio(times['runner'], times['bare_data']),
        'train_step/bare': ratio(times['train_step'], times['bare']),
        'Runner/train_step': ratio(times['runner'], times['train_step']),
        'bare ms': ms['bare'],
        'train_step ms': ms['train_step'],
        'Runner ms': ms['runner'],
        'Runner us/image': 1e3 * ms['runner'] / batch,
    }


def to_device(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """A batch of tensors on the device."""
    return {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def measure_selection(
    args: argparse.Namespace, clock: Clock, folder: str
) -> list[dict[str, float | str]]:
    """One selection pass: with the teacher's logits at hand, and the first one without."""
    runner = build_runner(args, folder, 'KD3', min(args.batch), blocks=args.images)
    model, pool = runner.model.eval(), runner.train_dataloader.dataset
    model.selector.min_selected = 1
    images = model.data_preprocessor(pool.__getitems__(range(len(pool))))['inputs']
    again = SelectionHook()
    again.cache.folder = Path(folder)

    def first() -> None:
        hook = SelectionHook()
        hook.cache.folder = Path(tempfile.mkdtemp(dir=folder))
        hook.before_train_epoch(runner)

    def forward(network: nn.Module) -> None:
        for part in images.split(again.batch_size):
            network(part)

    times = compare(
        clock,
        args.pairs,
        ours=lambda: again.before_train_epoch(runner),
        bare=lambda: forward(model.student),
        ours_first=first,
        bare_first=lambda: (forward(model.teacher), forward(model.student)),
    )
    us = {name: 1e6 * median(values) / len(pool) for name, values in times.items()}
    return [
        {
            'pass': name,
            'ours/bare': ratio(times[f'ours{key}'], times[f'bare{key}']),
            '+-': error(times[f'ours{key}'], times[f'bare{key}']),
            'bare us/image': us[f'bare{key}'],
            'ours us/image': us[f'ours{key}'],
        }
        for name, key in (('student, cached teacher', ''), ('student and teacher', '_first'))
    ]


def measure_synthesis(
    args: argparse.Namespace, clock: Clock, folder: str, method: str, batch: int
) -> dict[str, Any]:
    """A round of synthesis, with an adversary: the whole of it, the method's part, its floor.

    The whole also draws a progress bar, makes bytes of the images and asks the teacher about them.
    """
    runner = build_runner(args, folder, method, args.images // args.iterations, blocks=1)
    model = runner.model
    model.batch_size = batch
    if args.round is not None:
        model.iterations = args.round
    optimizers = runner.build_optim_wrapper(runner.optim_wrapper)
    floor: Any = FLOORS[method](model, optimizers)
    floor.model.batch_size, floor.model.iterations = batch, model.iterations
    check_round(model, floor)
    for each in (model, floor.model):
        fill_bank(each)
    number = model.warmup_rounds
    times = compare(
        clock,
        args.pairs,
        complete=lambda: synthesize_round(model, optimizers, 0, number),
        method=lambda: model.synthesize(optimizers, number),
        bare=floor.synthesize,
    )
    return {
        'method': method,
        'batch': batch,
        'steps': model.iterations,
        'round/bare': ratio(times['complete'], times['bare']),
        'synthesize/bare': ratio(times['method'], times['bare']),
        '+-': error(times['method'], times['bare']),
        'bare ms': 1e3 * median(times['bare']),
        'round ms': 1e3 * median(times['complete']),
        'images/s': batch / median(times['complete']),
    }


def fill_bank(model: Any) -> None:
    """Let a bank of features be full: while it fills, a round has more negatives each time."""
    if hasattr(model, 'bank'):
        model.bank.add(torch.randn_like(model.bank.rows))


def measure_evaluation(
    args: argparse.Namespace, clock: Clock, folder: str, method: str
) -> dict[str, Any]:
    """Validating the student in the Runner's loop against its forward over resident images."""
    size = args.images
    runner = build_runner(args, folder, method, min(args.batch), blocks=1)
    runner.train()  # hooks get ready there
    model = runner.model.eval()
    channels, height, width = model.student.input_shape
    images = np.random.default_rng(0).integers(
        0, 256, (size, height, width, channels), dtype=np.uint8
    )
    dataset = PackedDataset(images, np.arange(size) % model.student.num_classes)
    loader = dict(
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=500,
        num_workers=0,
    )
    evaluator = runner.build_evaluator([dict(type='Accuracy'), dict(type='Agreement')])
    loop = runner._val_loop = ValLoop(runner, loader, evaluator)
    model.remember_teacher(torch.arange(size) % model.student.num_classes)
    resident = [model.test_preprocessor(part)['inputs'] for part in loop.dataloader]

    @torch.no_grad()
    def bare() -> None:
        for images in resident:
            model.student(images)

    times = compare(clock, args.pairs, ours=loop.run, bare=bare)
    us = {name: 1e6 * median(values) / size for name, values in times.items()}
    return {
        'images': size,
        'Runner/bare': ratio(times['ours'], times['bare']),
        '+-': error(times['ours'], times['bare']),
        'bare us/image': us['bare'],
        'Runner us/image': us['ours'],
    }
