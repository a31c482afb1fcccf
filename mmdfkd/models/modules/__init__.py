# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Parts that methods are built from, beside the networks and losses."""

from .conv_neck import ConvNeck
from .gather import gather_batch
from .mix_distribution import MixDistribution, mix_distribution
from .projection_head import ProjectionHead
from .simkd_adapter import SimKDAdapter

__all__ = [
    'ConvNeck',
    'MixDistribution',
    'ProjectionHead',
    'SimKDAdapter',
    'gather_batch',
    'mix_distribution',
]
