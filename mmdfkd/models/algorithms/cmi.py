# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""CMI: Contrastive Model Inversion for Data-Free Knowledge Distillation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.generators import dcgan_init
from mmdfkd.models.losses import agreeing_kl_divergence
from mmdfkd.models.modules import (
    BestIterate,
    FeatureBank,
    ProjectionHead,
    batch_norm_layers,
    crop_view,
    feature_widths,
    named_layers,
    record_batch_statistics,
    record_instance_features,
    resized_crop_view,
)
from mmdfkd.registry import MODELS, OPTIMIZERS
from mmdfkd.utils.errors import UsageError, check_choice

from .base import add_up
from .generative import build_generator
from .inversion import InversionDistiller, Synthesis, betas_of_gans


@MODELS.register_module()
class CMI(InversionDistiller):
    """`Contrastive Model Inversion for Data-Free Knowledge Distillation
    <https://arxiv.org/abs/2105.08584>`_ (IJCAI 2021).

    A generator, new for every batch, is fitted to the teacher: its classes and what its BatchNorm
    layers remember. A contrastive term makes each image different from all that were made before,
    and an adversarial one makes it hard for the student as long as both agree about its class.

    ===========  ============================  ===================================================
    symbol       variable                      meaning
    ===========  ============================  ===================================================
    z, theta     ``latent``, ``generator``     optimised together, anew in each round
    x = G(z)     ``images``                    in the teacher's normalised space, ``(N, C, H, W)``
    y            ``targets``                   random classes, ``(N,)``
    x_g, x_l     ``global_view``,              shifted and mirrored; a window of it, enlarged and
                 ``local_view``                mirrored
    L_bn         ``bn_statistics(...)``        distance of the statistics of x_g from the teacher's
    L_oh         ``class_loss(...)``           cross-entropy of T(x_g) with y
    L_adv        ``-discrepancy``              ``-KL(T(x_g) || S(x_g))`` where S and T agree
    h            ``head``                      trained in all rounds, features to unit vectors
    L_cr         ``contrast(...)``             InfoNCE: anchors h(x_l), keys h(x_g), and those of
                                               earlier images
    B            ``bank``                      features of earlier images
    ===========  ============================  ===================================================

    Args:
        teacher: Config of the teacher; with BatchNorm, or with ``feature_layers``.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``.
        optimizer: Config of the optimiser of theta and z; Adam, learning rate 1e-3, and betas 0.5
            and 0.999 of any Adam, unless it says otherwise. That of h is ``optim_wrapper.head``.
        bn_statistics: Config of L_bn; ``type`` defaults to ``BNStatisticsLoss``, its
            ``loss_weight`` to 1.
        adversarial_weight: Weight of L_adv; 0 leaves the student out.
        contrast: Config of L_cr; ``type`` defaults to ``InstanceContrastLoss``, its ``loss_weight``
            to 0.8, its ``temperature`` to 0.1. With weight 0 there are no local views
            and no features.
        head_channels: Length of a unit vector. The hidden layer is as wide as a feature.
        bank_size: Features that are remembered, a multiple of ``batch_size`` at best. A feature of
            D numbers takes 8 D bytes: 0.9 GB for WRN-40-2.
        negatives: How many of them are drawn for each iteration.
        feature_layers: Names of the teacher's layers whose maps, averaged over all places, are the
            feature. Default: every BatchNorm layer.
        feature_on: What enters these layers, or what leaves them.
        padding: Pixels by which x_g is shifted at most, over black.
        scale: Lowest and highest area of the window of x_l, as a fraction.
        flip: Whether views are mirrored at random.
        reset_generator: Whether each round starts with new weights. ``False`` continues with those
            of the last.
        adversary_start: Rounds without L_adv, to let a student learn first.
        **kwargs: Those of :class:`InversionDistiller`, whose defaults are CMI's. L_oh has its
            ``class_weight``; there is no L_adv in ``warmup_rounds``.

    Differs from the published code: a bank that is exactly full counts as full there as empty,
    which gives one round of images that were not optimised; images are kept in 8 bits by rounding,
    not by cutting off; the student sees batches of 256, not 128 or 256.
    """

    default_types = dict(
        generator='UpsamplingGenerator',
        optimizer='Adam',
        bn_statistics='BNStatisticsLoss',
        contrast='InstanceContrastLoss',
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        optimizer: dict | None = None,
        bn_statistics: dict | None = None,
        adversarial_weight: float = 0.5,
        contrast: dict | None = None,
        head_channels: int = 256,
        bank_size: int = 40960,
        negatives: int = 4096,
        feature_layers: Sequence[str] | None = None,
        feature_on: Literal['input', 'output'] = 'input',
        padding: int = 4,
        scale: Sequence[float] = (0.25, 1.0),
        flip: bool = True,
        reset_generator: bool = True,
        adversary_start: int = 0,
        **kwargs: Any,
    ) -> None:
        check_choice('model.feature_on', feature_on, ('input', 'output'))
        super().__init__(teacher, student, **kwargs)
        if bank_size < self.batch_size:
            raise UsageError(
                f'model.bank_size is {bank_size}, and one round adds {self.batch_size} features '
                f'(model.batch_size). Set model.bank_size to a multiple of {self.batch_size}.'
            )
        self.generator = build_generator(self, 'generator', generator)
        self.optimizer = betas_of_gans(self.describe_part('optimizer', optimizer, lr=1e-3))
        self.bn_statistics = self.build_part('bn_statistics', bn_statistics, loss_weight=1.0)
        self.contrast = self.build_part('contrast', contrast, temperature=0.1, loss_weight=0.8)
        if feature_layers is None:
            remedy = 'Name other layers in model.feature_layers, or choose another method.'
            layers = batch_norm_layers(self.teacher, remedy=remedy)
        else:
            layers = named_layers(self.teacher, feature_layers, 'model.feature_layers')
        # In a tuple they are no submodules: they are the teacher's.
        self._feature_layers = tuple(layers) if self.contrast.loss_weight else ()
        self.feature_on = feature_on
        width = sum(feature_widths(self.teacher, layers, feature_on))
        self.head = ProjectionHead(width, head_channels, hidden_channels=width)
        self.bank = FeatureBank(bank_size if self.contrast.loss_weight else 0, 2 * width)
        self.negatives = negatives
        self.global_view = crop_view(self.teacher, padding, flip)
        self.local_view = resized_crop_view(self.teacher, scale, flip)
        self.adversarial_weight = adversarial_weight
        self.reset_generator = reset_generator
        self.adversary_start = adversary_start

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for the student, one for h; those of theta and z live for one round."""
        return dict(student=[self.student], head=[self.head])

    def synthesize(
        self,
        optim_wrapper: OptimWrapperDict,
        round_number: int = 0,
        adversary: bool = True,
        on_step: Callable[[], None] = lambda: None,
    ) -> Synthesis:
        """One batch: theta, z and h minimise ``L_bn + L_oh + L_adv + L_cr``; the best x is kept."""
        adversary = adversary and round_number >= self.adversary_start
        if self.reset_generator:
            self.reset()
        self.generator.train()
        latent = self.draw_latent().requires_grad_()
        targets = self.draw_targets()
        optimizer = OPTIMIZERS.build(
            dict(self.optimizer, params=[*self.generator.parameters(), latent])
        )
        best = BestIterate()
        with self.gradient_only_through(self.student, 'eval'):
            for _ in range(self.iterations):
                with optim_wrapper['head'].optim_context(self):
                    images = self.generator(latent)
                    loss, features, logs = self.synthesis_loss(images, targets, adversary)
                best.offer(loss, images=images, features=features, **logs)
                optimizer.zero_grad()
                optim_wrapper['head'].update_params(loss)  # its backward is that of theta, z too
                optimizer.step()
                on_step()
        best.check(round_number)
        if self.contrast.loss_weight:
            self.bank.add(best['features'])
        return Synthesis(best['images'], targets, {name: best[name] for name in logs})

    def reset(self) -> None:
        """New weights for the generator; they make mid-grey images of any latent."""
        dcgan_init(self.generator)

    def synthesis_loss(
        self, images: Tensor, targets: Tensor, adversary: bool = True
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss of one iteration.

        Returns:
            The loss; the features, local ones left of global ones, ``(N, 2 D)``, without gradient;
            and what is logged: weighted terms, and the discrepancy as it is.
        """
        logs: dict[str, Tensor] = {}
        features = images.new_empty(len(images), 0)
        global_view = self.global_view(images)
        with (
            record_batch_statistics(self.teacher, self.bn_statistics.loss_weight) as statistics,
            record_instance_features(self._feature_layers, self.feature_on) as global_features,
        ):
            teacher_logits = self.teacher(global_view)
        if statistics:
            logs['loss_bn'] = self.bn_statistics(statistics)
        logs['loss_class'] = self.class_loss(teacher_logits, targets)
        if self.contrast.loss_weight:
            with record_instance_features(self._feature_layers, self.feature_on) as local_features:
                self.teacher(self.local_view(images))
            features = torch.cat([*local_features, *global_features], 1)
            logs['loss_contrast'] = self.contrast_with_bank(features)
        loss = add_up(logs)
        if adversary and self.adversarial_weight:
            student_logits = self.student(global_view)
            logs['discrepancy'] = agreeing_kl_divergence(student_logits, teacher_logits)
            loss = loss - self.adversarial_weight * logs['discrepancy']
        return loss, features.detach(), logs

    def contrast_with_bank(self, features: Tensor) -> Tensor:
        """L_cr of features ``(N, 2 D)`` and as many of the bank's as are drawn.

        Gradient reaches the images through the local half alone: keys are constants.
        """
        rows = torch.cat([features, self.bank.draw(self.negatives)])
        local_features, global_features = rows.chunk(2, 1)
        anchors = self.head(local_features)
        with torch.no_grad():
            keys = self.head(global_features)
        return self.contrast(anchors, keys, len(features))
