# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The real Runner of a method's recipe, set up to be timed."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope

from mmdfkd.engine import DistillRunner
from mmdfkd.models.classifiers.checkpoint import save_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

CONFIGS = Path(__file__).parents[3] / 'configs'

#: Networks and data of the recipes.
PAIRS = dict(
    lenet5='lenet5_lenet5-half_{}_digits',
    resnet8='resnet8_resnet8-half_{}_digits',
    wrn='wrn-40-2_wrn-16-1_{}_cifar10',
    resnet34='resnet34_resnet18_{}_cifar10',
)
#: Pairs whose teachers do not ship, and get random weights.
RANDOM = ('wrn', 'resnet34')


def find_recipe(method: str, pair: str) -> Path:
    """The config of a method for a pair.

    Raises:
        UsageError: There is none.
    """
    folder = CONFIGS / MODELS.get(method).__module__.rpartition('.')[2]
    stem = f'{folder.name}_{PAIRS[pair]}'
    pattern = re.compile(stem.format(r'1xb\d+-\d+e'))
    found = [path for path in sorted(folder.glob('*.py')) if pattern.fullmatch(path.stem)]
    if not found:
        raise UsageError(
            f'{folder} has no {stem.format("1xb*-*e")}.py: there is no recipe of {method} for '
            f'--pair {pair}. Choose another pair.'
        )
    return found[0]


def has_recipe(method: str, pair: str) -> bool:
    """Whether there is a config of a method for a pair."""
    try:
        find_recipe(method, pair)
    except UsageError:
        return False
    return True


def build_runner(
    args: argparse.Namespace,
    folder: str,
    method: str,
    batch: int,
    blocks: int,
    options: dict[str, Any] | None = None,
) -> DistillRunner:
    """The real runner of the pair's config, long enough for some blocks; it logs to a file.

    All its batches are of one size. Labelled sets, smaller than ``--images``, are passed over
    several times an epoch; images of the pool take the place of a bank. ``options`` are as
    ``--cfg-options``.
    """
    cfg = load_config(find_recipe(method, args.pair))
    cfg.launcher = 'none'
    cfg.merge_from_dict(options or {})
    cfg.work_dir = tempfile.mkdtemp(dir=folder)
    cfg.experiment_name = Path(cfg.work_dir).name  # mmengine shares objects between namesakes
    init_default_scope(cfg.default_scope)
    if args.pair in RANDOM:
        cfg.model.teacher.checkpoint = str(random_teacher(dict(cfg.model.teacher), folder))
    loader, teacher = cfg.train_dataloader, cfg.model.teacher
    steps = min(args.images // batch, blocks * args.iterations)
    loader.batch_size = batch
    if loader.dataset.type == 'LatentDataset':
        loader.dataset.length = steps * batch
    elif loader.dataset.type == 'HybridDataset':  # the stage of the GAN
        loader.dataset.collected.num_images = steps * batch
        loader.batch_sampler.gan_batch_size, loader.sampler.passes = batch, 1
        cfg.model.num_synthetic, cfg.param_scheduler = 0, {}
    else:
        images = loader.dataset
        if images.type == 'ImageBank' or 'Pool' not in images.type:
            loader.sampler = dict(type='BankSampler', length=steps * batch)
        if images.type == 'ImageBank':
            images = dict(type='NoisePool' if args.pair in RANDOM else 'GlyphPool')
            cfg.default_hooks.pop('synthesis')  # does nothing in an iteration
        if images['type'] in ('GlyphPool', 'NoisePool'):
            images['num_images'] = args.images
        if images['type'] == 'NoisePool':
            images['channels'] = teacher.input_shape[0]
        loader.dataset = dict(
            type='QuickDataset',
            dataset=images,
            num_images=steps * batch,
            shape=teacher.input_shape,
            num_classes=teacher.head.num_classes,
        )
    cfg.train_cfg.max_epochs = -(-blocks // (steps // args.iterations))
    if 'gan_epochs' in cfg.model:
        cfg.model.gan_epochs = cfg.train_cfg.max_epochs
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = None
    for name in ('progress', 'figures', 'samples'):  # a bar would move while others are timed
        cfg.default_hooks.pop(name, None)
    for name in ('runtime_info', 'timer', 'logger'):
        cfg.default_hooks[name].interval = args.iterations
    with contextlib.redirect_stdout(io.StringIO()):  # the logger goes on writing there
        return DistillRunner.from_cfg(cfg)


def random_teacher(config: dict[str, Any], folder: str) -> Path:
    """Write a teacher of random weights, which takes as long as a trained one."""
    config.pop('checkpoint', None)
    network = MODELS.build({'type': 'Classifier', **config})
    images = torch.randn(64, *network.input_shape)
    network.train()
    with torch.no_grad():  # so that activations neither vanish nor explode in eval mode
        for _ in range(20):
            network(images)
    path = Path(folder, 'teacher.pth')
    save_classifier(path, network, dict(accuracy=90.0))
    return path
