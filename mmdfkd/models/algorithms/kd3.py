# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""KD³: Distribution Shift Matters for Knowledge Distillation with Webly Collected Images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_teacher, pool, share_classifier
from mmdfkd.models.losses import kl_divergence
from mmdfkd.models.modules import MixDistribution, ProjectionHead, statistics_kept
from mmdfkd.registry import MODELS, TRANSFORMS, describes
from mmdfkd.utils.errors import UsageError, check_choice

from .base import BaseDistiller, add_up, detached


@MODELS.register_module()
class KD3(BaseDistiller):
    """`Distribution Shift Matters for Knowledge Distillation with Webly Collected Images
    <https://arxiv.org/abs/2307.11469>`_ (ICCV 2023).

    The student shares the teacher's classifier and learns, on images collected anywhere, to fill
    it with the teacher's features. Before every epoch both networks choose the images that count
    (label shift); contrast between images and their statistics-swapped copies makes features care
    for content, not style (style shift).

    ===========  ===========================  ====================================================
    symbol       variable                     meaning
    ===========  ===========================  ====================================================
    x̄, x̃         ``images``, ``perturbed``    a batch of selected images, its MixDistribution copy
    φ_T, g_T     ``teacher.backbone, .head``  frozen
    φ_S          ``student.backbone``         trained
    A            ``student.neck``             adapter, trained
    f, h         ``*_map``, ``*_vector``      last map (B, C, H, W), the network's pooled vector
    z            ``*_head(...)``              unit embeddings (B, 128), Eqs. (13), (14)
    w            ``weight``                   alignment weight of each image, no gradient
    D_s          ``selector`` chooses it      Eqs. (2) to (8), see ``DynamicSelector``
    V_th, tau    ``selector.threshold``,      0.95, 0.3
                 ``contrast.temperature``
    lambda       ``contrast.loss_weight``     0.01
    ===========  ===========================  ====================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student. Its own head, if any, is not used. A neck of its own (the
            last 1x1 convolution of ShuffleNetV2 and MobileNetV2) is trained by L_mdcl alone: A
            takes the map before it, h is pooled behind it, and the deployed student is without.
        selector: Config of the instance selection; ``type`` defaults to ``DynamicSelector``.
        adapter: Config of A; ``type`` defaults to ``SimKDAdapter``. Channels and map sizes are
            found out. ``form='linear'`` and ``'none'`` are its ablations.
        alignment: Config of L_wfa; ``type`` defaults to ``WeightedFeatureAlignmentLoss``,
            from which another one derives.
        feature: What is aligned: ``'map'`` (published code) or ``'pooled'`` (paper).
        contrast: Config of L_mdcl; ``type`` defaults to ``MixDistributionContrastiveLoss``.
            ``loss_weight=0`` leaves out the perturbed passes altogether.
        teacher_term: Whether L_mdcl^T is computed. It trains the teacher's projection head only:
            the student's tensors are bit-identical without it, one teacher pass cheaper, unless
            gradients are clipped, by the norm of all.
        perturbation: Config of what makes x̃: ``MixDistribution`` (default) or a batch transform
            such as ``BatchAutoAugment`` (the paper's "No MD").
        batch_norm: How the student's BatchNorm sees the two views. ``'separate'``: one after the
            other, both update the running statistics (published code); ``'clean_only'``: only x̄
            updates them; ``'concat'``: one pass over both.
        classifier: ``'shared'``: the teacher's (the method). ``'own_one_hot'``, ``'own_soft'``: a
            classifier of the student's own, trained with cross-entropy to the teacher's argmax or
            KL to its probabilities (Table 2).
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.

    Differs from the paper (its published code in brackets, whose choice is the default): logits
    are combined for selection [as here]; w = sigmoid(distance), so *inconsistent* images weigh
    more [as here; the paper's Eq. (9) on logits does not train]; A exists and maps are aligned [as
    here]; the contrast is symmetric NT-Xent [as here]; selection sees un-augmented images, so that
    the teacher's predictions are computed once [random crops; ``SelectionHook.view='train'``].
    """

    learns_from = 'collected'
    teacher: Classifier

    default_types = dict(
        selector='DynamicSelector',
        adapter='SimKDAdapter',
        alignment='WeightedFeatureAlignmentLoss',
        contrast='MixDistributionContrastiveLoss',
        perturbation='MixDistribution',
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict,
        selector: dict | None = None,
        adapter: dict | None = None,
        alignment: dict | None = None,
        feature: Literal['map', 'pooled'] = 'map',
        contrast: dict | None = None,
        teacher_term: bool = True,
        perturbation: dict | None = None,
        batch_norm: Literal['separate', 'clean_only', 'concat'] = 'separate',
        classifier: Literal['shared', 'own_one_hot', 'own_soft'] = 'shared',
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.feature', feature, ('map', 'pooled'))
        check_choice('model.batch_norm', batch_norm, ('separate', 'clean_only', 'concat'))
        check_choice('model.classifier', classifier, ('shared', 'own_one_hot', 'own_soft'))
        teacher = build_teacher(teacher)
        adapter = self.describe_part('adapter', adapter)
        network = share_classifier(student, teacher, adapter, own=classifier != 'shared')
        selector = self.describe_part('selector', selector)
        super().__init__(network, teacher, selector, data_preprocessor)
        self.alignment = self.build_part('alignment', alignment)
        self.contrast = self.build_part('contrast', contrast)
        perturbation = self.describe_part('perturbation', perturbation)
        mixes = describes(MODELS, perturbation, MixDistribution)
        self.perturbation = (MODELS if mixes else TRANSFORMS).build(perturbation)
        neck = MODELS.build(student['neck']) if student.get('neck') else None
        self.student_neck = neck or nn.Identity()
        width = neck.out_channels if neck else network.neck.in_channels
        self.student_head = ProjectionHead(width)  # E_S
        self.teacher_head = ProjectionHead(network.neck.out_channels)  # E_T
        self.feature = feature
        self.teacher_term = teacher_term
        self.batch_norm = batch_norm
        self.classifier = classifier

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for φ_S, A, the student's own neck and both heads; g_T is frozen."""
        heads = [self.student_head, self.teacher_head]
        return dict(student=[self.student, self.student_neck, *heads])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step of Algorithm 1 on a batch of D_s: ``L = L_wfa + lambda L_mdcl``, Eq. (18)."""
        images = self.data_preprocessor(data, training=True)['inputs']
        if len(images) == 1:
            raise UsageError(
                'A training batch holds one image; KD³ needs at least 2 (BatchNorm and contrast). '
                'Raise train_dataloader.batch_size, or model.selector.min_selected.'
            )
        contrasts = self.contrast.loss_weight > 0
        with optim_wrapper['student'].optim_context(self):
            if contrasts:
                perturbed = self.perturb(images)  # x̃, Eqs. (11), (12)
            with torch.no_grad():  # before the student's graph fills the caches
                teacher = self.teacher.extract(images)
                if contrasts and self.teacher_term:
                    perturbed_vector = self.teacher.extract(perturbed).vector
            if contrasts:
                student_map, *student_vectors = self.student_views(images, perturbed)
            else:
                student_map = self.student.backbone(images)[-1]

            adapted_map = self.student.neck(student_map)  # A(f^S)
            student_logits = self.student.head(pool(adapted_map))  # N_S(x̄) = g_T(...), Eq. (2)
            weight = self.alignment.weight(student_logits, teacher.logits)  # Eq. (9)
            logs = dict(loss_wfa=self.align(adapted_map, teacher.map, weight))  # Eq. (10)

            if contrasts:  # Eqs. (13) to (16)
                logs['loss_mdcl_student'] = self.contrast_views(self.student_head, *student_vectors)
                if self.teacher_term:
                    logs['loss_mdcl_teacher'] = self.contrast_views(
                        self.teacher_head, teacher.vector, perturbed_vector
                    )
            if self.classifier != 'shared':
                logs['loss_classifier'] = self.own_classifier_loss(student_logits, teacher.logits)
            loss = add_up(logs)  # Eqs. (17), (18)
        optim_wrapper['student'].update_params(loss)
        return detached(dict(loss=loss, **logs, weight=weight.mean()))

    def perturb(self, images: Tensor) -> Tensor:
        """Make x̃ from normalised images; transforms of 8-bit images go there and back."""
        if isinstance(self.perturbation, nn.Module):
            return self.perturbation(images)
        preprocessor = self.data_preprocessor
        return preprocessor.normalize(self.perturbation(preprocessor.denormalize(images)))

    def student_views(self, images: Tensor, perturbed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clean map f and both vectors h of φ_S, under the chosen BatchNorm regime."""
        if self.batch_norm == 'concat':
            maps, vectors = self.embed(torch.cat([images, perturbed]))
            clean_vector, perturbed_vector = vectors.chunk(2)
            return maps[: len(images)], clean_vector, perturbed_vector
        clean_map, clean_vector = self.embed(images)
        with statistics_kept(self.student, self.student_neck, keep=self.batch_norm == 'clean_only'):
            perturbed_vector = self.embed(perturbed)[1]
        return clean_map, clean_vector, perturbed_vector

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Last map f of φ_S and its own pooled vector h, neither through A."""
        feature_map = self.student.backbone(images)[-1]
        return feature_map, pool(self.student_neck(feature_map))

    def contrast_views(self, head: ProjectionHead, clean: Tensor, perturbed: Tensor) -> Tensor:
        """L_mdcl of one network. The loss makes unit vectors itself: once is enough."""
        return self.contrast(*head.linear(torch.cat([clean, perturbed])).chunk(2))

    def align(self, adapted_map: Tensor, teacher_map: Tensor, weight: Tensor) -> Tensor:
        """L_wfa between maps, or between pooled vectors."""
        teacher_map = self.student.neck.match_teacher(teacher_map)
        if self.feature == 'pooled':
            adapted_map, teacher_map = pool(adapted_map), pool(teacher_map)
        return self.alignment(adapted_map, teacher_map, weight)

    def own_classifier_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """What trains a classifier of the student's own: one-hot or soft pseudo-labels."""
        if self.classifier == 'own_one_hot':
            return F.cross_entropy(student_logits, teacher_logits.argmax(1))
        return kl_divergence(student_logits, teacher_logits, temperature=1.0)
