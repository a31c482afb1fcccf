# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""FastDFKD: Up to 100x Faster Data-Free Knowledge Distillation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import agreeing_kl_divergence
from mmdfkd.models.modules import (
    BatchStatistics,
    BestIterate,
    StatisticsAverage,
    batch_norm_layers,
    crop_view,
    feature_widths,
    record_batch_statistics,
)
from mmdfkd.registry import MODELS, OPTIMIZERS
from mmdfkd.utils.errors import UsageError, check_choice, check_least

from .base import add_up
from .generative import build_generator
from .inversion import InversionDistiller, Synthesis, betas_of_gans

#: What of a generator ``reset_l0`` draws anew.
FIRST_LAYERS = {'linear': ('linear',), 'legacy': ('linear', 'norm'), False: ()}


@MODELS.register_module()
class FastDFKD(InversionDistiller):
    """`Up to 100x Faster Data-Free Knowledge Distillation
    <https://arxiv.org/abs/2112.06253>`_ (AAAI 2022).

    Inverting a teacher takes few steps if it starts well. So each round adapts a copy of a meta
    generator to random targets, k steps long, and moves the meta generator such that the next copy
    is better after as many.

    ===============  ========================  ===================================================
    symbol           variable                  meaning
    ===============  ========================  ===================================================
    theta            ``self.generator``        meta generator, trained in all rounds
    theta', z        ``generator``,            a copy of it and fresh latents, adapted for one
                     ``latent``                round
    x = G(z)         ``images``                in the teacher's normalised space, ``(N, C, H, W)``
    y                ``targets``               random classes, ``(N,)``
    k                ``iterations``            inner steps
    L_bn             ``bn_statistics(...)``    distance of statistics from the teacher's, averaged
                                               over rounds with momentum m
    L_oh             ``class_loss(...)``       cross-entropy of T(x) with y
    L_adv            ``-discrepancy``          ``-KL(T(x) || S(x))`` where S and T agree
    ===============  ========================  ===================================================

    Args:
        teacher: Config of the teacher; it needs BatchNorm unless ``bn_statistics.loss_weight=0``.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``.
        optimizer: Config of the inner optimiser of theta' and z, new in each round; Adam, learning
            rate 3e-3, betas 0.5 and 0.999 unless it says otherwise. The outer one, of theta, is
            ``optim_wrapper.generator``; its learning rate is k times as large in all recipes.
        latent_lr: Learning rate of z.
        bn_statistics: Config of L_bn; ``type`` defaults to ``BNStatisticsLoss``, its
            ``loss_weight`` to 10.
        bn_momentum: m in [0, 1); 0 compares each batch by itself.
        class_weight: Weight of L_oh.
        adversarial_weight: Weight of L_adv; 0 leaves the student out.
        meta: How theta learns from a round. ``'fomaml'``: from the sum of the gradients of all
            inner steps; ``'reptile'``: from ``reptile_alpha (theta - theta')``; ``'none'``: there
            is no copy, the generator itself goes on from round to round (the paper's sequential
            reuse), and ``optim_wrapper.generator`` is not used.
        reptile_alpha: See there; 67 in the published code. Adam makes little of it.
        meta_latent: Whether z is a start to learn too, instead of fresh. It takes a role of its
            own, ``optim_wrapper.latent``.
        latent_reset: Rounds after which such a z is drawn anew.
        reset_l0: Whether the first layer of theta is drawn anew once, which helps diversity in the
            end: ``'linear'``; ``'legacy'`` draws the scale of the first batch norm too, from
            N(0, 0.02), as published, which all but switches it off; ``False``.
        reset_at: Ahead of which round after the warm-up, counted from 1.
        padding: Pixels by which what the networks see is shifted at most, over black.
        flip: Whether it is mirrored at random.
        iterations: k. Published triples of k, learning rate and ``latent_lr``: 2, 5e-3, 0.015;
            5, 3e-3, 0.01; 10, 2e-3, 0.01. They belong together.
        warmup_rounds: Rounds before the first epoch, without L_adv.
        **kwargs: Those of :class:`InversionDistiller`.

    Differs from the published code: L_adv starts with the first round after the warm-up, not with
    its last one; where z is learnt, its gradient is taken, not its value; images are kept in 8 bits
    by rounding, not by cutting off.
    """

    default_types = dict(
        generator='UpsamplingGenerator', optimizer='Adam', bn_statistics='BNStatisticsLoss'
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        optimizer: dict | None = None,
        latent_lr: float = 0.01,
        bn_statistics: dict | None = None,
        bn_momentum: float = 0.9,
        class_weight: float = 0.4,
        adversarial_weight: float = 1.1,
        meta: Literal['fomaml', 'reptile', 'none'] = 'fomaml',
        reptile_alpha: float = 1.0,
        meta_latent: bool = False,
        latent_reset: int = 50,
        reset_l0: Literal['linear', 'legacy', False] = 'linear',
        reset_at: int = 120,
        padding: int = 4,
        flip: bool = True,
        iterations: int = 5,
        warmup_rounds: int = 20,
        **kwargs: Any,
    ) -> None:
        check_choice('model.meta', meta, ('fomaml', 'reptile', 'none'))
        check_choice('model.reset_l0', reset_l0, tuple(FIRST_LAYERS))
        if meta_latent and meta == 'none':
            raise UsageError(
                "model.meta_latent needs an outer step, which model.meta='none' has not. Set "
                "model.meta to 'fomaml' or 'reptile'."
            )
        check_least('model.latent_reset', latent_reset, 1)
        super().__init__(
            teacher,
            student,
            class_weight=class_weight,
            iterations=iterations,
            warmup_rounds=warmup_rounds,
            **kwargs,
        )
        self.generator = build_generator(self, 'generator', generator)
        self.first_layers = FIRST_LAYERS[reset_l0]
        for name in self.first_layers:
            if not isinstance(getattr(getattr(self.generator, name, None), 'weight', None), Tensor):
                raise UsageError(
                    f'model.reset_l0={reset_l0!r} draws the weights of generator.{name} anew, and '
                    f'{type(self.generator).__name__} has none. Set model.reset_l0=False.'
                )
        self.optimizer = betas_of_gans(self.describe_part('optimizer', optimizer, lr=3e-3))
        self.latent_lr = latent_lr
        latents = [torch.randn(self.batch_size, self.generator.latent_size)] if meta_latent else []
        self.latents = nn.ParameterList(latents)  # one or none
        self.latent_reset = latent_reset
        self.bn_statistics = self.build_part('bn_statistics', bn_statistics, loss_weight=10.0)
        channels = 0
        if self.bn_statistics.loss_weight:
            channels = sum(feature_widths(self.teacher, batch_norm_layers(self.teacher)))
        self.average = StatisticsAverage(channels, bn_momentum)
        self.view = crop_view(self.teacher, padding, flip)
        self.adversarial_weight = adversarial_weight
        self.meta = meta
        self.reptile_alpha = reptile_alpha
        self.reset_at = reset_at

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for the student, one for theta, and one for z where it is learnt."""
        roles: dict[str, list[nn.Module]] = dict(student=[self.student], generator=[self.generator])
        return roles | (dict(latent=[self.latents]) if len(self.latents) else {})

    def synthesize(
        self,
        optim_wrapper: OptimWrapperDict,
        round_number: int = 0,
        adversary: bool = True,
        on_step: Callable[[], None] = lambda: None,
    ) -> Synthesis:
        """One batch: theta' and z minimise ``L_bn + L_oh + L_adv``, then theta learns from it."""
        if round_number + 1 == self.warmup_rounds + self.reset_at:
            self.reset_first_layers()
        self.generator.train()
        generator = self.generator if self.meta == 'none' else self.copy_generator()
        latent = self.start_latent(round_number)
        targets = self.draw_targets()
        adapted = [*generator.parameters(), latent]  # theta', z
        groups = [dict(params=adapted[:-1]), dict(params=[latent], lr=self.latent_lr)]
        optimizer = OPTIMIZERS.build(dict(self.optimizer, params=groups))
        sums = [torch.zeros_like(parameter) for parameter in adapted]  # of all steps' gradients
        best = BestIterate()
        with self.gradient_only_through(self.student, 'eval'):
            for _ in range(self.iterations):
                with optim_wrapper['generator'].optim_context(self):
                    images = generator(latent)
                    loss, statistics, logs = self.synthesis_loss(images, targets, adversary)
                best.offer(loss, images=images, **logs)
                optimizer.zero_grad()
                loss.backward()
                torch._foreach_add_(sums, [parameter.grad for parameter in adapted])
                optimizer.step()
                on_step()
        best.check(round_number)
        if statistics:
            self.average.update(statistics)
        if self.meta != 'none':
            self.move_meta(optim_wrapper, adapted, sums)
        return Synthesis(best['images'], targets, {name: best[name] for name in logs})

    def copy_generator(self) -> nn.Module:
        """A copy of the meta generator to be adapted to one batch."""
        return copy.deepcopy(self.generator)

    def start_latent(self, round_number: int) -> Tensor:
        """Where z starts: fresh, or at what was learnt; a leaf ``(N, L)`` of this round."""
        if not len(self.latents):
            return self.draw_latent().requires_grad_()
        start = self.latents[0].detach()
        if round_number and round_number % self.latent_reset == 0:
            start.copy_(self.draw_latent())
        return start.clone().requires_grad_()

    def synthesis_loss(
        self, images: Tensor, targets: Tensor, adversary: bool = True
    ) -> tuple[Tensor, list[BatchStatistics], dict[str, Tensor]]:
        """The loss of one inner step.

        Returns:
            The loss; the statistics of this batch; and what is logged, weighted terms and the
            discrepancy as it is.
        """
        logs: dict[str, Tensor] = {}
        view = self.view(images)
        with record_batch_statistics(self.teacher, self.bn_statistics.loss_weight) as statistics:
            teacher_logits = self.teacher(view)
        if statistics:
            logs['loss_bn'] = self.bn_statistics(self.average(statistics))
        logs['loss_class'] = self.class_loss(teacher_logits, targets)
        loss = add_up(logs)
        if adversary and self.adversarial_weight:
            logs['discrepancy'] = agreeing_kl_divergence(self.student(view), teacher_logits)
            loss = loss - self.adversarial_weight * logs['discrepancy']
        return loss, statistics, logs

    def move_meta(
        self, optim_wrapper: OptimWrapperDict, adapted: list[Tensor], sums: list[Tensor]
    ) -> None:
        """The outer step: theta, and z where it is learnt, by a first-order meta gradient.

        Args:
            optim_wrapper: Optimisers by role.
            adapted: What the inner steps made of theta' and, last, of z.
            sums: The sums of their gradients.
        """
        learnt = [*self.generator.parameters(), *self.latents]  # less than adapted by a fresh z
        for start, end, total in zip(learnt, adapted, sums, strict=False):
            if self.meta == 'fomaml':
                start.grad = total
            else:
                start.grad = self.reptile_alpha * (start - end).detach()
        for role in self.roles():
            if role != 'student':
                optim_wrapper[role].step()
                optim_wrapper[role].zero_grad()

    def reset_first_layers(self) -> None:
        """Draw weights of the meta generator anew, those that ``reset_l0`` names."""
        for name in self.first_layers:
            layer = getattr(self.generator, name)
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)
