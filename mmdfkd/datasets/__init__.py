# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Datasets, unlabelled pools, batch transforms and samplers."""

from .collate import whole_batch_collate
from .digits import DigitsDataset
from .glyph_pool import GlyphPool
from .hybrid import HybridBatchSampler, HybridDataset, HybridSampler
from .image_bank import ImageBank
from .image_pool import ImagePool, write_pool
from .labelled import (
    CIFAR10,
    CIFAR100,
    CINIC10,
    MNIST,
    SVHN,
    LabelledFolder,
    LabelledSet,
    TinyImageNet,
)
from .latents import CountingSampler, LatentDataset
from .noise_pool import NoisePool
from .packed import PackedDataset
from .quick import QuickDataset
from .samplers import BankSampler, EvenBatchSampler, SelectionSampler
from .transforms import BatchAutoAugment, BatchRandomCrop, BatchRandomFlip, BatchRandomResizedCrop

__all__ = [
    'BankSampler',
    'BatchAutoAugment',
    'BatchRandomCrop',
    'BatchRandomFlip',
    'BatchRandomResizedCrop',
    'CIFAR10',
    'CIFAR100',
    'CINIC10',
    'CountingSampler',
    'DigitsDataset',
    'EvenBatchSampler',
    'GlyphPool',
    'HybridBatchSampler',
    'HybridDataset',
    'HybridSampler',
    'ImageBank',
    'ImagePool',
    'LabelledFolder',
    'LabelledSet',
    'LatentDataset',
    'MNIST',
    'NoisePool',
    'PackedDataset',
    'QuickDataset',
    'SVHN',
    'SelectionSampler',
    'TinyImageNet',
    'whole_batch_collate',
    'write_pool',
]
