# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""``--quick``: any config as a run of seconds, to see that it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmdfkd.models.classifiers import load_classifier, resolve_checkpoint, save_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

IMAGES = 256
BATCH = 32


def make_quick(cfg: Config) -> Config:
    """Shrink a config to toy size, in place.

    Two epochs (or four iterations) on at most 256 images in batches of at most 32. Where images or
    a teacher's checkpoint are not on this machine, random ones of the right shape stand in, and
    the log says so: the accuracy of a quick run means nothing.

    Args:
        cfg: A config whose ``work_dir`` is set.

    Returns:
        The same config.
    """
    cfg.work_dir = str(Path(cfg.work_dir).parent / 'quick' / Path(cfg.work_dir).name)
    train = cfg.get('train_cfg') or {}
    for key, limit in dict(max_epochs=2, max_iters=4, val_interval=4).items():
        if key in train:
            train[key] = min(train[key], limit)
    if 'max_epochs' in train:
        train['val_interval'] = 1
    network = cfg.model.get('teacher') or cfg.model.student
    if 'head' not in network:  # its file says what it is
        network = Config(load_classifier(network.checkpoint).config)
    spec = dict(
        shape=tuple(network.get('input_shape') or (3, 32, 32)),
        num_classes=network.head.num_classes,
    )
    selector = cfg.model.get('selector') or {}
    if selector.get('num_images'):
        selector.num_images = min(selector.num_images, IMAGES)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.batch_size = min(loader.batch_size, BATCH)
            loader.num_workers = 0
            loader.pop('persistent_workers', None)
            if loader.dataset.get('type') == 'GlyphPool':
                loader.dataset.num_images = IMAGES
            loader.dataset = dict(
                type='QuickDataset', dataset=loader.dataset, num_images=IMAGES, **spec
            )
    if cfg.model.get('teacher'):
        _ensure_teacher(cfg)
    return cfg


def _ensure_teacher(cfg: Config) -> None:
    """Replace a checkpoint that is not here by one of random weights."""
    teacher: Any = cfg.model.teacher
    try:
        resolve_checkpoint(teacher.get('checkpoint', ''))
    except UsageError as error:
        config = {key: value for key, value in teacher.items() if key != 'checkpoint'}
        if not config:
            raise
        path = Path(cfg.work_dir, 'random_teacher.pth')
        print_log(f'--quick: {error} A teacher with random weights stands in: {path}.', 'current')
        save_classifier(path, MODELS.build({'type': 'Classifier', **config}), {})
        teacher.checkpoint = str(path)
