# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Augmentations of whole batches: parameters per sample, one vectorised call, on any device."""

from .auto_augment import AutoAugmentParams, BatchAutoAugment
from .batch import (
    BatchRandomCrop,
    BatchRandomFlip,
    BatchTransform,
    CropParams,
    FlipParams,
)
from .resized_crop import BatchRandomResizedCrop, ResizedCropParams

__all__ = [
    'AutoAugmentParams',
    'BatchAutoAugment',
    'BatchRandomCrop',
    'BatchRandomFlip',
    'BatchRandomResizedCrop',
    'BatchTransform',
    'CropParams',
    'FlipParams',
    'ResizedCropParams',
]
