# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""``--quick``: any config as a run of seconds, to see that it works."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmdfkd.datasets import GlyphPool, HybridDataset, ImageBank, ImagePool, LatentDataset
from mmdfkd.datasets.image_pool import is_pool
from mmdfkd.models.classifiers import (
    Classifier,
    check_sight,
    load_classifier,
    resolve_checkpoint,
    save_classifier,
)
from mmdfkd.registry import DATASETS, MODELS, class_of, describes
from mmdfkd.utils import UsageError
from mmdfkd.utils.counting import count_macs

IMAGES = 256
BATCH = 32
#: Steps and rounds of methods that make images out of the teacher.
SYNTHESIS = dict(iterations=4, rounds=1, warmup_rounds=1)
#: Numbers that a batch of latents is divided by.
SHARES = {'replay_ratio', 'memory_ratio'}
#: Images are fewer for networks so large that one pass over all would exceed so many multiply-adds.
BUDGET = 3e9
#: What weights that are not downloaded would have said about their images: ImageNet's constants.
PRETRAINED = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], size=224)


def make_quick(cfg: Config) -> Config:
    """Shrink a config to toy size, in place.

    Two epochs (or four iterations) on at most 256 images in batches of at most 32, down to 8 images
    in batches of 4 for large networks. Where images or a teacher's weights are not on this machine,
    random ones of the right shape stand in, and the log says so: the accuracy of a quick run means
    nothing.

    Args:
        cfg: A config whose ``work_dir`` is set.

    Returns:
        The same config.
    """
    cfg.work_dir = str(Path(cfg.work_dir).parent / 'quick' / Path(cfg.work_dir).name)
    train = cfg.get('train_cfg') or {}
    epochs = train.get('max_epochs', 0)
    for key, limit in dict(max_epochs=2, max_iters=4, val_interval=4).items():
        if key in train:
            train[key] = min(train[key], limit)
    if 'max_epochs' in train:
        train['val_interval'] = 1
    downloads = _leave_downloads(cfg.model.get('teacher') or {})
    has_teacher = bool(cfg.model.get('teacher'))
    network = _build(cfg.model.teacher if has_teacher else cfg.model.student)
    if hasattr(network, 'backbone'):
        check_sight(
            network, network.input_shape, 'model.teacher' if has_teacher else 'model.student'
        )
    macs = count_macs(network.to('meta')) or 1
    images = int(max(8, min(IMAGES, BUDGET // macs)))
    selector = cfg.model.get('selector') or {}
    if selector.get('num_images'):
        selector['num_images'] = min(selector['num_images'], images)
    _look_at_few(cfg, images)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.batch_size = min(loader.batch_size, BATCH, images // 2)
            loader.num_workers = 0
            loader.pop('persistent_workers', None)
            if describes(DATASETS, loader.dataset, LatentDataset):  # there are no images
                loader.dataset.length = min(loader.dataset.length, images)
                _keep_shares(cfg.model, loader.batch_size)
                continue
            if describes(DATASETS, loader.dataset, ImageBank):  # the method makes them
                loader.sampler.length = min(loader.sampler.length, images)
                for key, limit in dict(SYNTHESIS, batch_size=loader.batch_size).items():
                    cfg.model[key] = min(cfg.model.get(key, limit), limit)
                continue
            if describes(DATASETS, loader.dataset, HybridDataset):
                _shrink_gan(cfg, images, epochs)
                loader.dataset.collected = _first(loader.dataset.collected, images, network)
                continue
            loader.dataset = _first(loader.dataset, images, network)
    if cfg.model.get('teacher'):
        _ensure_teacher(cfg, downloads)
    return cfg


def _first(dataset: Any, images: int, network: Classifier) -> dict:
    """The first images of a dataset."""
    if describes(DATASETS, dataset, GlyphPool):
        dataset.num_images = images
    return dict(
        type='QuickDataset',
        dataset=dataset,
        num_images=images,
        shape=network.input_shape,
        num_classes=network.num_classes,
    )


def _shrink_gan(cfg: Config, images: int, epochs: int) -> None:
    """Shrink the stages of a run with a GAN; images of an earlier run that are not here are made.

    Args:
        cfg: The config, whose ``max_epochs`` is 2 by now.
        images: At most how many images of each kind.
        epochs: What ``max_epochs`` was.
    """
    model, loader = cfg.model, cfg.train_dataloader
    bank: Any = loader.dataset.get('synthetic') or {}
    filled = describes(DATASETS, bank, ImageBank)  # by this run: a bank is a pool too
    if not filled and describes(DATASETS, bank, ImagePool) and not is_pool(bank.root):
        print_log(f'--quick: there are no images in {bank.root}; a GAN makes some.', 'current')
        loader.dataset.synthetic = dict(type='ImageBank')
        model.gan_epochs = 1
    elif model.gan_epochs:
        model.gan_epochs = 2 if model.gan_epochs >= epochs else 1
    model.num_synthetic = min(model.get('num_synthetic', images), images)
    selector = model.setdefault('selector', {})
    selector.pop('keep_ratio', None)
    selector['num_select'] = min(selector.get('num_select', images), images // 2)
    loader.sampler.update(repeat=min(loader.sampler.get('repeat', 1), 1), passes=1)
    if loader.get('batch_sampler'):
        loader.batch_sampler.gan_batch_size = loader.batch_size
    cfg.train_cfg.pop('val_begin', None)
    for scheduler in cfg.param_scheduler.get('student', ()):
        scheduler.begin = 0


def _look_at_few(cfg: Config, images: int) -> None:
    """Let hooks look at no more generated images than the run learns from."""
    hooks: Any = cfg.get('default_hooks') or {}
    for name in ('samples', 'gan'):
        if hooks.get(name):
            hooks[name].count = min(hooks[name].get('count', images), images)
    if hooks.get('samples'):
        hooks.samples.per_class = 0


def _keep_shares(model: Any, batch_size: int) -> None:
    """Where a method learns from one of so many latents, two of them are to be left."""
    parameters = inspect.signature(class_of(MODELS, model)).parameters
    for key in SHARES & parameters.keys():
        model[key] = min(model.get(key, parameters[key].default), batch_size // 2)


def _build(config: Any) -> Classifier:
    """The network of a config: its sizes matter here, not its weights."""
    config = dict(config)
    checkpoint = config.pop('checkpoint', None)
    if checkpoint and not config:  # its file says what it is
        return load_classifier(checkpoint)
    return MODELS.build({'type': 'Classifier', **config})


def _leave_downloads(teacher: Any) -> bool:
    """Keep another library from downloading weights; whether it would have."""
    if not teacher.get('pretrained') or ':' in teacher.source:  # a function has its own
        return False
    del teacher['pretrained']
    for key, value in PRETRAINED.items():
        teacher.setdefault(key, value)
    return True


def _ensure_teacher(cfg: Config, downloads: bool) -> None:
    """Replace weights that are not here by random ones."""
    teacher: Any = cfg.model.teacher
    if teacher.get('pretrained'):
        return
    reason = f'no weights are downloaded for {teacher.get("model")}.'
    if not downloads or 'checkpoint' in teacher:
        try:
            resolve_checkpoint(teacher.get('checkpoint', ''))
            return
        except UsageError as error:
            reason = str(error)
    path = Path(cfg.work_dir, 'random_teacher.pth')
    print_log(f'--quick: {reason} A teacher with random weights stands in: {path}.', 'current')
    save_classifier(path, _build(teacher), {})
    teacher.checkpoint = str(path)
