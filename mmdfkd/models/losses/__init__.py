# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Losses: a pure function and a thin registered module each."""

from .contrastive import MixDistributionContrastiveLoss, cross_view_contrast, nt_xent
from .feature_alignment import (
    WeightedFeatureAlignmentLoss,
    alignment_weight,
    weighted_feature_alignment,
)
from .kl_divergence import KLDivergence, kl_divergence

__all__ = [
    'KLDivergence',
    'MixDistributionContrastiveLoss',
    'WeightedFeatureAlignmentLoss',
    'alignment_weight',
    'cross_view_contrast',
    'kl_divergence',
    'nt_xent',
    'weighted_feature_alignment',
]
