# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Parts that methods are built from, beside the networks and losses."""

from .adaptation_matrix import AdaptationMatrix
from .batch_statistics import (
    BatchStatistics,
    batch_norm_layers,
    record_batch_statistics,
)
from .conv_neck import ConvNeck
from .gather import gather_batch
from .mix_distribution import MixDistribution, mix_distribution
from .mixup import Mixup, mix
from .projection_head import ProjectionHead
from .simkd_adapter import SimKDAdapter
from .statistics_kept import statistics_kept

__all__ = [
    'AdaptationMatrix',
    'BatchStatistics',
    'ConvNeck',
    'MixDistribution',
    'Mixup',
    'ProjectionHead',
    'SimKDAdapter',
    'batch_norm_layers',
    'gather_batch',
    'mix',
    'mix_distribution',
    'record_batch_statistics',
    'statistics_kept',
]
