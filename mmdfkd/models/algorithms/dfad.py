# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DFAD: Data-Free Adversarial Distillation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.modules import gather_batch
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice, check_least

from .base import detached
from .generative import GenerativeDistiller


@MODELS.register_module()
class DFAD(GenerativeDistiller):
    """`Data-Free Adversarial Distillation <https://arxiv.org/abs/1912.11006>`_.

    A min-max game on logits: the student imitates the teacher on generated images, the generator
    looks for images on which they differ. The L1 distance keeps its gradient's size as they come
    to agree.

    ===========  ====================  =====================================================
    symbol       variable              meaning
    ===========  ====================  =====================================================
    z            ``latent``            standard normal, ``(B, L)``, fresh for every step
    x = G(z)     ``images``            in the teacher's normalised space, ``(B, C, H, W)``
    T(x), S(x)   ``*_logits``          ``(B, K)``, or ``(B, K, H, W)`` for dense prediction
    D(x)         ``discrepancy``       mean over all elements of ``|S(x) - T(x)|``
    ===========  ====================  =====================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``.
        student_steps: Imitation steps before each generation step.
        adversary: What the generator minimises: ``'neg'`` is ``-D``, ``'neg_log'`` the
            ``-log(D + 1)`` of dense prediction, tame while D is large.
        student_mode: Mode of the student in the generation step: in ``'train'`` (published code)
            its running statistics see these images too, in ``'eval'`` they do not.
        data_preprocessor: See :class:`GenerativeDistiller`.

    Differs from the paper: nothing known. ``student_mode`` is what its code does.
    """

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        student_steps: int = 5,
        adversary: Literal['neg', 'neg_log'] = 'neg',
        student_mode: Literal['train', 'eval'] = 'train',
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.adversary', adversary, ('neg', 'neg_log'))
        check_choice('model.student_mode', student_mode, ('train', 'eval'))
        check_least('model.student_steps', student_steps, 1)
        super().__init__(teacher, student, generator, data_preprocessor)
        self.draws = student_steps + 1
        self.adversary = adversary
        self.student_mode = student_mode

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration: the student imitates on fresh images, several times; then G moves once."""
        *student_latents, generator_latent = self.latents(data)
        for latent in student_latents:
            loss_student = self.imitate(latent, optim_wrapper['student'])
        logs = self.move_generator(generator_latent, optim_wrapper['generator'])
        return dict(loss_student=loss_student, **logs)

    def imitate(self, latent: Tensor, optim_wrapper: OptimWrapper) -> Tensor:
        """Imitation stage: S minimises ``D(x)``."""
        with optim_wrapper.optim_context(self):
            images = self.generate(latent)
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            loss = self.imitation_loss(self.student(images), teacher_logits)
        optim_wrapper.update_params(loss)
        return loss.detach()

    def move_generator(self, latent: Tensor, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Generation stage: G minimises ``-D(x)``, through S and T alike."""
        passing = self.gradient_only_through(self.student, self.student_mode)
        with optim_wrapper.optim_context(self), passing:
            loss, logs = self.generator_loss(self.generator(latent))
        optim_wrapper.update_params(loss)
        return detached(logs)

    def imitation_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """``L_S = D(x)``."""
        return F.l1_loss(student_logits, teacher_logits)

    def generator_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``L_G = -D(x)``, and what is logged of it."""
        discrepancy = F.l1_loss(self.student(images), self.teacher(images))
        return self.adversarial(discrepancy), dict(discrepancy=discrepancy)

    def adversarial(self, discrepancy: Tensor) -> Tensor:
        """``-D``, or ``-log(D + 1)`` with the D of all processes."""
        if self.adversary == 'neg_log':
            return -gather_batch(discrepancy[None]).mean().log1p()
        return -discrepancy
