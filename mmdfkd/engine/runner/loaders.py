# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a config leaves open about its dataloaders and their datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmdfkd.datasets import (
    HybridDataset,
    ImageBank,
    LatentDataset,
    PackedDataset,
    whole_batch_collate,
)
from mmdfkd.datasets.residency import make_resident
from mmdfkd.datasets.samplers import SharedSampler
from mmdfkd.registry import DATA_SAMPLERS, DATASETS, class_of, describes
from mmdfkd.utils import UsageError
from mmdfkd.utils.device import choose_device


def set_loader_defaults(
    cfg: Config, pin_memory: bool = True, persistent_workers: bool = True
) -> None:
    """Say of each dataloader what its config leaves open, in place.

    Args:
        cfg: A config.
        pin_memory: Whether batches may be pinned; they are where there is a GPU.
        persistent_workers: Whether worker processes, if there are any, may outlive an epoch.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            pinned = loader.get('pin_memory', torch.cuda.is_available())
            kept = loader.get('persistent_workers', loader.get('num_workers', 0) > 0)
            loader.pin_memory = pin_memory and pinned
            loader.persistent_workers = persistent_workers and kept


def complete_loader(config: dict) -> dict:
    """The whole config of a dataloader.

    ``collate_fn`` defaults to ``whole_batch_collate`` and, beside one of our samplers,
    ``batch_sampler`` to the one it names; ``None`` gives PyTorch's.

    Raises:
        UsageError: The last batch is to be dropped by what drops none.
    """
    defaults: dict[str, Any] = dict(collate_fn=whole_batch_collate)
    sampler: Any = config.get('sampler')
    if describes(DATA_SAMPLERS, sampler, SharedSampler):
        own = class_of(DATA_SAMPLERS, sampler).batch_sampler
        defaults['batch_sampler'] = dict(type=own)
    config = {**defaults, **config}
    if not config.get('num_workers'):
        config.pop('persistent_workers', None)  # PyTorch refuses that of none
    if config.get('drop_last') and config.get('batch_sampler'):
        raise UsageError(
            f'drop_last=True of a dataloader: {config["batch_sampler"]["type"]} makes the batches, '
            'and drops none. Leave it out, or set batch_sampler=None.'
        )
    return config


def settle(loader: DataLoader) -> DataLoader:
    """Let a set live on the device if it fits, and draw nothing from the run's own generator.

    See :func:`~mmdfkd.datasets.residency.make_resident`.
    """
    dataset = loader.dataset
    parts = dataset.parts if isinstance(dataset, HybridDataset) else [dataset]
    packed = [part for part in parts if isinstance(part, PackedDataset)]
    if any([make_resident(part, choose_device()) for part in packed]):
        loader.num_workers, loader.pin_memory = 0, False  # batches are born on the device
    if loader.num_workers:  # which draws a seed for its processes
        loader.generator = torch.Generator()
    return loader


def complete_dataset(dataset: dict, model: Any, work_dir: str, seed: int) -> None:
    """Say of the training images what only their run knows, in place.

    A :class:`LatentDataset` is told the seed and the shape of a latent, an :class:`ImageBank` its
    folder and the shape of an image, also where it is the synthetic part of a
    :class:`HybridDataset`.

    Args:
        dataset: Its config.
        model: The method that learns from it.
        work_dir: Of the run.
        seed: Likewise.

    Raises:
        UsageError: The images are none for the method.
    """
    reads_none = model.latent_shape is not None
    if reads_none and describes(DATASETS, dataset, PackedDataset):
        raise UsageError(
            f'{model.method} reads no images, and train_dataloader.dataset is an '
            f"{class_of(DATASETS, dataset).__name__}. Set dataset=dict(type='LatentDataset', "
            "length=...) and sampler=dict(type='CountingSampler'), or choose a method that "
            'learns from images.'
        )
    latents = describes(DATASETS, dataset, LatentDataset)
    if latents and not reads_none:
        raise UsageError(
            f'{model.method} learns from images, and train_dataloader.dataset is a LatentDataset. '
            "Set dataset=dict(type='ImagePool', root=...), or choose a method with a generator, "
            'such as DAFL.'
        )
    if describes(DATASETS, dataset, HybridDataset):
        dataset = dataset.get('synthetic') or dataset
    if describes(DATASETS, dataset, ImageBank) and model.teacher is not None:
        dataset.setdefault('root', str(Path(work_dir, 'bank')))
        dataset.setdefault('shape', model.teacher.input_shape)
    if latents:
        dataset.setdefault('seed', seed)
        dataset.setdefault('shape', model.latent_shape)
