# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""STKD: Similarity Transfer for Knowledge Distillation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import KLDivergence
from mmdfkd.models.modules import mix
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

from .base import BaseDistiller, add_up, detached


@MODELS.register_module()
class STKD(BaseDistiller):
    """`Similarity Transfer for Knowledge Distillation <https://arxiv.org/abs/2103.10047>`_.

    Virtual samples, mixed from images of a batch, lie between classes: the teacher's prediction
    there tells how their instances resemble each other, and all other classes. The student learns
    it, together with the labels mixed alike. Needs original, labelled data.

    ===========  ====================  ===========================================================
    symbol       variable              meaning
    ===========  ====================  ===========================================================
    x, y         ``images, labels``    a batch, y one-hot, ``(B, C, H, W)``, ``(B, K)``
    lam, pi      ``weights``,          of the mixture, see :func:`~mmdfkd.models.modules.mix`
                 ``partners``
    x~, y~       ``mixed_*``           ``lam x + (1 - lam) x[pi]``, and y likewise
    T(.), S(.)   ``*_logits``          teacher and student, ``(B, K)``
    T            ``temperature``       3
    w            ``kd_weight``         0.1
    ===========  ====================  ===========================================================

    Args:
        teacher: Config of the teacher; trained without mixup, so that it was never told what a
            virtual sample is.
        student: Config of the student.
        mixup: Config of lam and pi; ``type`` defaults to ``Mixup``, whose ``num_mix`` sets how
            many images make a virtual one and ``per_sample`` draws a lam for each of them.
        target: What the student's prediction on x~ shall be: ``'mixed_image'``, the teacher's on
            the same x~; ``'mixed_probabilities'``, the mixture of the teacher's probabilities on
            the images x that x~ is made of.
        temperature: T > 0.
        kd_weight: w. 0 leaves the teacher out: mixup alone, a control.
        ce_weight: Weight of the cross-entropy with y~; 0 reads no label.
        clean_branch: Add the same loss on the batch itself (lam = 1): plain KD beside STKD.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper: not known. Neither its full text nor any code was available to us; this
    is the method of its abstract. The loss, ``CE(S(x~), y~) + w T^2 KL(T(x~) || S(x~))``, takes it
    that teacher and student both see the virtual sample and mixed labels enter by the
    cross-entropy; ``target='mixed_probabilities'`` takes "mixed labels" for mixed soft labels. w
    and T are those of the first author's SLKD, arXiv 2106.10885; the other usual choice is
    ``ce_weight=0.1, kd_weight=0.9, temperature=4``.
    """

    learns_from = 'original'
    teacher: Classifier

    default_types = dict(mixup='Mixup')

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        mixup: dict | None = None,
        target: Literal['mixed_image', 'mixed_probabilities'] = 'mixed_image',
        temperature: float = 3.0,
        kd_weight: float = 0.1,
        ce_weight: float = 1.0,
        clean_branch: bool = False,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.target', target, ('mixed_image', 'mixed_probabilities'))
        if min(kd_weight, ce_weight) < 0 or kd_weight == ce_weight == 0:
            raise UsageError(
                f'model.kd_weight={kd_weight} and model.ce_weight={ce_weight}: neither may be '
                'negative, and one must be positive. The defaults are 0.1 and 1.0.'
            )
        super().__init__(student, teacher, data_preprocessor=data_preprocessor)
        self.mixup = self.build_part('mixup', mixup)
        self.divergence = KLDivergence(temperature=temperature)
        self.target = target
        self.kd_weight = kd_weight
        self.ce_weight = ce_weight
        self.reads_labels = ce_weight > 0
        self.clean_branch = clean_branch

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser, for the student."""
        return dict(student=[self.student])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step: ``L = CE(S(x~), y~) + w T^2 KL(T(x~) || S(x~))``, and that of x if asked."""
        batch = self.data_preprocessor(data, training=True)
        images, labels = batch['inputs'], self.labels(batch)
        with optim_wrapper['student'].optim_context(self):
            weights, partners = self.mixup.draw(images)  # lam, pi: one draw for all that is mixed
            mixed_images = mix(images, weights, partners)  # x~
            mixed_labels = None if labels is None else mix(labels, weights, partners)  # y~
            teacher_logits = self.teacher_target(images, mixed_images, weights, partners)
            logs = self.losses(self.student(mixed_images), teacher_logits, mixed_labels)
            if self.clean_branch:
                clean = self.losses(self.student(images), self.teacher_logits(images), labels)
                logs.update({f'{name}_clean': loss for name, loss in clean.items()})
            loss = add_up(logs)
        optim_wrapper['student'].update_params(loss)
        return detached(dict(loss=loss, **logs))

    def losses(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Weighted terms of samples with soft labels ``(B, K)``."""
        logs = {}
        if labels is not None:
            logs['loss_ce'] = self.ce_weight * F.cross_entropy(student_logits, labels)
        if teacher_logits is not None:
            logs['loss_kd'] = self.kd_weight * self.divergence(student_logits, teacher_logits)
        return logs

    @torch.no_grad()
    def teacher_target(
        self, images: Tensor, mixed_images: Tensor, weights: Tensor, partners: Tensor
    ) -> Tensor | None:
        """Logits ``(B, K)`` whose softmax at T is what the student is to predict on x~."""
        if self.target == 'mixed_image' or self.kd_weight == 0:
            return self.teacher_logits(mixed_images)
        temperature = self.divergence.temperature
        probabilities = (at_least_float32(self.teacher(images)) / temperature).softmax(1)
        mixture = mix(probabilities, weights, partners)  # of probabilities, not of logits
        return temperature * mixture.clamp(min=torch.finfo(mixture.dtype).tiny).log()

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """The teacher's logits ``(B, K)``, unless they have no weight."""
        return self.teacher(images) if self.kd_weight > 0 else None

    def labels(self, batch: dict) -> Tensor | None:
        """One-hot labels ``(B, K)``, unless they have no weight."""
        if self.ce_weight == 0:
            return None
        if 'label' not in batch:
            raise UsageError(
                'STKD mixes labels and the training images have none. Set '
                'train_dataloader.dataset to a labelled dataset, or model.ce_weight=0.'
            )
        labels = batch['label']
        one_hot = batch['inputs'].new_zeros(len(labels), self.student.num_classes)
        return one_hot.scatter_(1, labels[:, None], 1.0)
