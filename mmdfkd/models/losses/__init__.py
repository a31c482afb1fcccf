# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Losses: a pure function and a thin registered module each."""

from .attention_transfer import AttentionTransferLoss, attention_map, attention_transfer
from .bn_statistics import BNStatisticsLoss, bn_statistics_loss
from .class_priors import (
    ActivationLoss,
    ClassBalanceLoss,
    OneHotLoss,
    activation_loss,
    class_balance_loss,
    one_hot_loss,
)
from .contrastive import MixDistributionContrastiveLoss, cross_view_contrast, nt_xent
from .feature_alignment import (
    WeightedFeatureAlignmentLoss,
    alignment_weight,
    weighted_feature_alignment,
)
from .hint import HintLoss, hint_regression
from .js_divergence import JSDivergence, js_divergence
from .kl_divergence import KLDivergence, kl_divergence
from .logit_regression import LogitRegressionLoss, logit_regression
from .map_loss import MapLoss
from .noisy_label import NoisyLabelLoss, noisy_nll

__all__ = [
    'ActivationLoss',
    'AttentionTransferLoss',
    'BNStatisticsLoss',
    'ClassBalanceLoss',
    'HintLoss',
    'JSDivergence',
    'KLDivergence',
    'LogitRegressionLoss',
    'MapLoss',
    'MixDistributionContrastiveLoss',
    'NoisyLabelLoss',
    'OneHotLoss',
    'WeightedFeatureAlignmentLoss',
    'activation_loss',
    'alignment_weight',
    'attention_map',
    'attention_transfer',
    'bn_statistics_loss',
    'class_balance_loss',
    'cross_view_contrast',
    'hint_regression',
    'js_divergence',
    'kl_divergence',
    'logit_regression',
    'noisy_nll',
    'nt_xent',
    'one_hot_loss',
    'weighted_feature_alignment',
]
