# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Datasets, unlabelled pools, batch transforms and samplers."""

from .collate import whole_batch_collate
from .digits import DigitsDataset
from .glyph_pool import GlyphPool
from .image_pool import ImagePool, write_pool
from .noise_pool import NoisePool
from .packed import PackedDataset
from .quick import QuickDataset
from .samplers import SelectionSampler
from .transforms import BatchRandomCrop, BatchRandomFlip, BatchRandomResizedCrop

__all__ = [
    'BatchRandomCrop',
    'BatchRandomFlip',
    'BatchRandomResizedCrop',
    'CIFAR10',
    'DigitsDataset',
    'GlyphPool',
    'ImagePool',
    'NoisePool',
    'PackedDataset',
    'QuickDataset',
    'SelectionSampler',
    'whole_batch_collate',
    'write_pool',
]
