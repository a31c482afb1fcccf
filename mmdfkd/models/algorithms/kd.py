# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""KD: Distilling the Knowledge in a Neural Network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import KLDivergence
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .base import BaseDistiller


@MODELS.register_module()
class KD(BaseDistiller):
    """`Distilling the Knowledge in a Neural Network <https://arxiv.org/abs/1503.02531>`_.

    The student matches the teacher's softened predictions, and the labels where there are any.
    With ``alpha=1`` no label is read, so any images will do: noise, a pool, a random part of one.

    ========  =====================  =========================================
    symbol    variable               meaning
    ========  =====================  =========================================
    z_t, z_s  ``teacher_logits``, …  logits, ``(B, K)``
    T         ``temperature``        softens both distributions
    alpha     ``alpha``              weight of the teacher, 1 - alpha of labels
    ========  =====================  =========================================

    Args:
        teacher: Config of the teacher, see :class:`BaseDistiller`.
        student: Config of the student.
        temperature: ``T > 0``.
        alpha: In [0, 1].
        selector: Config of a selector, for pools.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper: nothing; the weights are those of the usual ``(1 - alpha, alpha)`` form.
    """

    teacher: Classifier

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict,
        temperature: float = 4.0,
        alpha: float = 0.9,
        selector: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise UsageError(f'model.alpha is {alpha}; it must lie in [0, 1].')
        super().__init__(student, teacher, selector, data_preprocessor)
        self.alpha = alpha
        self.divergence = KLDivergence(temperature=temperature)

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser, for the student."""
        return dict(student=[self.student])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step: ``L = (1 - alpha) CE(z_s, y) + alpha T^2 KL(p_t^T || p_s^T)``."""
        batch = self.data_preprocessor(data, training=True)
        images = batch['inputs']
        with optim_wrapper['student'].optim_context(self):
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            student_logits = self.student(images)
            distillation = self.divergence(student_logits, teacher_logits)
            logs = dict(loss_kd=distillation)
            loss = self.alpha * distillation
            if self.alpha < 1:
                logs['loss_ce'] = F.cross_entropy(student_logits, self.labels(batch))
                loss = loss + (1 - self.alpha) * logs['loss_ce']
        optim_wrapper['student'].update_params(loss)
        return {name: value.detach() for name, value in dict(loss=loss, **logs).items()}

    def labels(self, batch: dict) -> Tensor:
        """Labels of the batch; a pool has none."""
        if 'label' not in batch:
            raise UsageError(
                f'model.alpha={self.alpha} gives labels a weight of {1 - self.alpha:.2g}, but the '
                'training images have none. Set model.alpha=1.0, or train on labelled data.'
            )
        return batch['label']
