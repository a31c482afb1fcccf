# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""KD: Distilling the Knowledge in a Neural Network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, map_shapes
from mmdfkd.models.losses import KLDivergence, MapLoss
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .base import BaseDistiller, add_up, detached


@MODELS.register_module()
class KD(BaseDistiller):
    """`Distilling the Knowledge in a Neural Network <https://arxiv.org/abs/1503.02531>`_.

    The student matches the teacher's softened predictions, and the labels where there are any.
    With ``alpha=1`` no label is read, so any images will do: noise, a pool, a random part of one.
    Losses on inner feature maps, such as attention transfer and hints, may be added.

    ========  ====================  ===========================================
    symbol    variable              meaning
    ========  ====================  ===========================================
    z_t, z_s  ``*.logits``          logits, ``(B, K)``
    F_t, F_s  ``*.maps``            feature maps, each ``(B, C_i, H_i, W_i)``
    T         ``temperature``       softens both distributions
    alpha     ``alpha``             weight of the teacher, 1 - alpha of labels
    ========  ====================  ===========================================

    Args:
        teacher: Config of the teacher, see :class:`BaseDistiller`.
        student: Config of the student.
        temperature: ``T > 0``.
        alpha: In [0, 1] where ``ce_weight`` is not given.
        ce_weight: Weight of the labels instead of 1 - alpha; with 1 the loss is
            ``CE + alpha T^2 KL``, another common form. 0 reads no label.
        feature_losses: Names of further terms to configs of losses on maps, for instance
            ``dict(attention=dict(type='AttentionTransferLoss'))`` or
            ``dict(hint=dict(type='HintLoss', indices=[1]))``. Maps are those of ``out_indices`` of
            both backbones. What such a loss trains itself is trained with the student and is no
            part of it.
        selector: Config of a selector, for pools.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper: nothing; the weights are those of the usual ``(1 - alpha, alpha)`` form.
    Code that averages the divergence over the classes too (``F.kl_div``'s default), such as that of
    attention transfer with ``2 alpha T^2``, means ``alpha`` times 2 / K here.
    """

    learns_from = 'original'
    teacher: Classifier

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict,
        temperature: float = 4.0,
        alpha: float = 0.9,
        ce_weight: float | None = None,
        feature_losses: Mapping[str, dict] | None = None,
        selector: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        if ce_weight is None and not 0 <= alpha <= 1:
            raise UsageError(f'model.alpha is {alpha}; it must lie in [0, 1].')
        if ce_weight is not None and min(alpha, ce_weight) < 0:
            raise UsageError(
                f'model.alpha is {alpha} and model.ce_weight {ce_weight}; neither may be negative.'
            )
        super().__init__(student, teacher, selector, data_preprocessor)
        self.alpha = alpha
        self.ce_weight = 1 - alpha if ce_weight is None else ce_weight
        self.reads_labels = self.ce_weight > 0
        if not (self.alpha or self.ce_weight or feature_losses):
            raise UsageError(
                'model.alpha and model.ce_weight are 0, so nothing is learnt. Raise one of them, '
                'or give model.feature_losses.'
            )
        self.divergence = KLDivergence(temperature=temperature)
        self.feature_losses = nn.ModuleDict()
        for name, config in (feature_losses or {}).items():
            feature_loss = MODELS.build(config)
            if not isinstance(feature_loss, MapLoss):
                raise UsageError(
                    f'model.feature_losses.{name}.type={config["type"]!r} compares no feature '
                    "maps; choose 'AttentionTransferLoss' or 'HintLoss'."
                )
            feature_loss.fit_maps(map_shapes(self.student), map_shapes(self.teacher))
            self.feature_losses[name] = feature_loss

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser, for the student and what losses on maps train with it."""
        return dict(student=[self.student, *self.feature_losses.values()])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step: ``L = (1 - alpha) CE(z_s, y) + alpha T^2 KL(p_t^T || p_s^T) + sum L_map``."""
        batch = self.data_preprocessor(data, training=True)
        images = batch['inputs']
        with optim_wrapper['student'].optim_context(self):
            with torch.no_grad():
                teacher = self.teacher.extract(images)
            student = self.student.extract(images)
            logs, terms = {}, {}
            if self.alpha > 0:
                logs['loss_kd'] = self.divergence(student.logits, teacher.logits)
                terms['kd'] = self.alpha * logs['loss_kd']
            if self.ce_weight > 0:
                logs['loss_ce'] = F.cross_entropy(student.logits, self.labels(batch))
                terms['ce'] = self.ce_weight * logs['loss_ce']
            for name, feature_loss in self.feature_losses.items():
                loss = feature_loss(student.maps, teacher.maps)
                logs[f'loss_{name}'] = terms[f'loss_{name}'] = loss
            loss = add_up(terms)
        optim_wrapper['student'].update_params(loss)
        return detached(dict(loss=loss, **logs))

    def labels(self, batch: dict) -> Tensor:
        """Labels of the batch; a pool has none."""
        if 'label' not in batch:
            raise UsageError(
                f'model.alpha={self.alpha} gives labels a weight of {self.ce_weight:.2g} (unless '
                'model.ce_weight does), but the training images have none. Set model.alpha=1.0, or '
                'model.ce_weight=0, or train on labelled data.'
            )
        return batch['label']
