# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DFQ: Data-Free Network Quantization With Adversarial Knowledge Distillation, the latter half."""

from __future__ import annotations

import math
from typing import Literal

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.losses import KLDivergence
from mmdfkd.models.modules import batch_norm_layers, record_batch_statistics
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice, check_least
from mmdfkd.utils.modes import in_mode

from .base import add_up, detached
from .generative import GenerativeDistiller


@MODELS.register_module()
class DFQ(GenerativeDistiller):
    """`Data-Free Network Quantization With Adversarial Knowledge Distillation
    <https://arxiv.org/abs/2005.04136>`_ (CVPR Workshops 2020), its distillation half.

    A min-max game on the divergence of student from teacher, whose generator is kept among images
    like the teacher's own: those with the statistics its BatchNorm layers remember, that it is sure
    of, and that cover all classes.

    ===========  ============================  ===================================================
    symbol       variable                      meaning
    ===========  ============================  ===================================================
    z            ``latent``                    standard normal, ``(B, L)``, fresh for every step
    x = G(z)     ``images``                    in the teacher's normalised space, ``(B, C, H, W)``
    T(x), S(x)   ``*_logits``                  ``(B, K)``
    D            ``discrepancy``               ``KL(T(x) || S(x))``
    L_BNS        ``bn_statistics(...)``        distance of batch from running statistics
    L_inst       ``one_hot(T(x))``             how uncertain the teacher is of each image
    H_batch      ``-balance(T(x))``            entropy of the mean prediction, natural logarithm
    alpha        ``*.loss_weight``             one weight per term
    ===========  ============================  ===================================================

    Args:
        teacher: Config of the teacher; it needs BatchNorm unless ``bn_statistics.loss_weight=0``.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``.
        bn_statistics: Config of L_BNS; ``type`` defaults to ``BNStatisticsLoss``, its
            ``loss_weight`` to 1. ``form='gauss_kl'`` is the paper's.
        one_hot: Config of L_inst; ``type`` defaults to ``OneHotLoss``, its ``loss_weight`` to 1.
            ``form='entropy'`` is the paper's.
        balance: Config of ``-H_batch``; ``type`` defaults to ``ClassBalanceLoss``, its ``log_base``
            to e and its ``loss_weight`` to 20.
        adversarial_weight: Weight of ``-D``.
        student_steps: Student steps after each generator step, on fresh images.
        temperature: Of D, for both players. Other than 1 it is multiplied by its square.
        student_mode: Mode of the student in the generator step: in ``'eval'`` its running
            statistics are used and stay, in ``'train'`` they see these images too.
        generator_mode: Mode of the generator in student steps: its running statistics
            (``'eval'``), or those of the batch (``'train'``).
        warmup_iterations: The first iterations move the generator only, without the adversary. They
            are iterations of the run: add them to ``max_epochs``, and let the student's schedule
            ``begin`` behind them.
        data_preprocessor: See :class:`GenerativeDistiller`.

    Differs from the paper: no public code of its authors is known; the defaults are those of the
    benchmarks of CMI and FastDFKD, whose results later papers quote (L2 distance of statistics,
    cross-entropy with the argmax, weights 1, 1 and 20, no warm-up). The paper has the KL between
    Gaussians, entropy, a common weight (0.01 in the public reproduction) and a warm-up; arguments
    give them. It may train several generators and students together; this is one of each.
    """

    default_types = dict(
        bn_statistics='BNStatisticsLoss', one_hot='OneHotLoss', balance='ClassBalanceLoss'
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        bn_statistics: dict | None = None,
        one_hot: dict | None = None,
        balance: dict | None = None,
        adversarial_weight: float = 1.0,
        student_steps: int = 10,
        temperature: float = 1.0,
        student_mode: Literal['eval', 'train'] = 'eval',
        generator_mode: Literal['eval', 'train'] = 'eval',
        warmup_iterations: int = 0,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.student_mode', student_mode, ('eval', 'train'))
        check_choice('model.generator_mode', generator_mode, ('eval', 'train'))
        check_least('model.student_steps', student_steps, 1)
        check_least('model.warmup_iterations', warmup_iterations, 0)
        super().__init__(teacher, student, generator, data_preprocessor)
        self.bn_statistics = self.build_part('bn_statistics', bn_statistics, loss_weight=1.0)
        self.one_hot = self.build_part('one_hot', one_hot, loss_weight=1.0)
        self.balance = self.build_part('balance', balance, log_base=math.e, loss_weight=20.0)
        if self.bn_statistics.loss_weight:
            batch_norm_layers(self.teacher)  # says so where there are none
        self.divergence = KLDivergence(temperature=temperature)
        self.adversarial_weight = adversarial_weight
        self.draws = 1 + student_steps
        self.student_mode = student_mode
        self.generator_mode = generator_mode
        self.warmup_iterations = warmup_iterations
        self.iteration = 0

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration: G moves once; then the student imitates on fresh images, several times."""
        generator_latent, *student_latents = self.latents(data)
        adversary = self.iteration >= self.warmup_iterations
        self.iteration += 1
        logs = self.move_generator(generator_latent, optim_wrapper['generator'], adversary)
        if not adversary:  # the generator warms up
            return logs
        for latent in student_latents:
            loss_student = self.imitate(latent, optim_wrapper['student'])
        return dict(loss_student=loss_student, **logs)

    def move_generator(
        self, latent: Tensor, optim_wrapper: OptimWrapper, adversary: bool = True
    ) -> dict[str, Tensor]:
        """G minimises ``alpha (L_BNS + L_inst - H_batch) - D``, through S and T alike."""
        passing = self.gradient_only_through(self.student, self.student_mode)
        with optim_wrapper.optim_context(self), passing:
            loss, logs = self.generator_loss(self.generator(latent), adversary)
        optim_wrapper.update_params(loss)
        return detached(logs)

    def generator_loss(
        self, images: Tensor, adversary: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_G and what is logged of it: weighted terms, and the discrepancy as it is."""
        logs: dict[str, Tensor] = {}
        with record_batch_statistics(self.teacher, self.bn_statistics.loss_weight) as statistics:
            teacher_logits = self.teacher(images)
        if statistics:
            logs['loss_bn'] = self.bn_statistics(statistics)
        logs['loss_one_hot'] = self.one_hot(teacher_logits)
        logs['loss_balance'] = self.balance(teacher_logits)
        loss = add_up(logs)
        if adversary:
            logs['discrepancy'] = self.divergence(self.student(images), teacher_logits)
            loss = loss - self.adversarial_weight * logs['discrepancy']
        return loss, logs

    def imitate(self, latent: Tensor, optim_wrapper: OptimWrapper) -> Tensor:
        """S minimises ``D``."""
        with optim_wrapper.optim_context(self):
            images = self.generate(latent)
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            loss = self.divergence(self.student(images), teacher_logits)
        optim_wrapper.update_params(loss)
        return loss.detach()

    def generate(self, latent: Tensor) -> Tensor:
        """Images to learn from, of the generator in ``generator_mode``."""
        with in_mode(self.generator, self.generator_mode):
            return super().generate(latent)

    # How far the warm-up is belongs to the state: a resumed run does not repeat it.

    def get_extra_state(self) -> Tensor:
        """Number of iterations so far, for checkpoints."""
        return torch.tensor(self.iteration)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of iterations of a checkpoint."""
        self.iteration = int(state)
