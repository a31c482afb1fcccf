# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Losses: a pure function and a thin registered module each."""

from .adversarial import hinge_loss, pass_for_real_loss, real_or_fake_class_loss
from .attention_transfer import AttentionTransferLoss, attention_map, attention_transfer
from .bn_statistics import BNStatisticsLoss, bn_statistics_loss
from .category_frequency import CategoryFrequencySmoothing
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
from .feature_integration import FeatureIntegrationLoss, Integration, feature_integration
from .hint import HintLoss, hint_regression
from .image_norm import ImageNormLoss, image_norm
from .instance_contrast import InstanceContrastLoss, info_nce
from .js_divergence import JSDivergence, js_divergence
from .kl_divergence import KLDivergence, agreeing_kl_divergence, kl_divergence
from .logit_regression import LogitRegressionLoss, logit_regression
from .map_loss import MapLoss, fit_attention
from .noisy_label import NoisyLabelLoss, noisy_nll
from .total_variation import TotalVariationLoss, total_variation
from .vae import VAELoss, gaussian_kl, vae_loss

__all__ = [
    'ActivationLoss',
    'AttentionTransferLoss',
    'BNStatisticsLoss',
    'CategoryFrequencySmoothing',
    'ClassBalanceLoss',
    'FeatureIntegrationLoss',
    'HintLoss',
    'ImageNormLoss',
    'InstanceContrastLoss',
    'Integration',
    'JSDivergence',
    'KLDivergence',
    'LogitRegressionLoss',
    'MapLoss',
    'MixDistributionContrastiveLoss',
    'NoisyLabelLoss',
    'OneHotLoss',
    'TotalVariationLoss',
    'VAELoss',
    'WeightedFeatureAlignmentLoss',
    'activation_loss',
    'agreeing_kl_divergence',
    'alignment_weight',
    'attention_map',
    'attention_transfer',
    'bn_statistics_loss',
    'class_balance_loss',
    'cross_view_contrast',
    'feature_integration',
    'fit_attention',
    'gaussian_kl',
    'hinge_loss',
    'hint_regression',
    'image_norm',
    'info_nce',
    'js_divergence',
    'kl_divergence',
    'logit_regression',
    'noisy_nll',
    'nt_xent',
    'one_hot_loss',
    'pass_for_real_loss',
    'real_or_fake_class_loss',
    'total_variation',
    'vae_loss',
    'weighted_feature_alignment',
]
