# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Parts that methods are built from, beside the networks and losses."""

from .adaptation_matrix import AdaptationMatrix
from .batch_statistics import (
    BatchStatistics,
    batch_norm_layers,
    record_batch_statistics,
)
from .best_iterate import BestIterate
from .conditional_norm import ClassConditionalNorm
from .conv_neck import ConvNeck
from .feature_bank import FeatureBank
from .gather import gather_batch
from .instance_features import feature_widths, named_layers, record_instance_features
from .mix_distribution import MixDistribution, mix_distribution
from .mixup import Mixup, mix
from .moving_average import MovingAverage
from .projection_head import ProjectionHead
from .simkd_adapter import SimKDAdapter
from .spectral_norm import SpectralNorm, normalise_spectrum
from .statistics_average import StatisticsAverage
from .statistics_kept import statistics_kept
from .views import RandomView, crop_view, resized_crop_view

__all__ = [
    'AdaptationMatrix',
    'BatchStatistics',
    'BestIterate',
    'ClassConditionalNorm',
    'ConvNeck',
    'FeatureBank',
    'MixDistribution',
    'Mixup',
    'MovingAverage',
    'ProjectionHead',
    'RandomView',
    'SimKDAdapter',
    'SpectralNorm',
    'StatisticsAverage',
    'batch_norm_layers',
    'crop_view',
    'feature_widths',
    'gather_batch',
    'mix',
    'mix_distribution',
    'named_layers',
    'normalise_spectrum',
    'record_batch_statistics',
    'record_instance_features',
    'resized_crop_view',
    'statistics_kept',
]
