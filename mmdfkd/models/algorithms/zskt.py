# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""ZSKT: Zero-shot Knowledge Transfer via Adversarial Belief Matching."""

from __future__ import annotations

from typing import Literal

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmdfkd.models.classifiers import Classifier, map_shapes
from mmdfkd.models.losses import fit_attention, kl_divergence
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice, check_least

from .base import add_up, detached
from .generative import GenerativeDistiller


@MODELS.register_module()
class ZSKT(GenerativeDistiller):
    """`Zero-shot Knowledge Transfer via Adversarial Belief Matching
    <https://arxiv.org/abs/1905.09768>`_ (NeurIPS 2019).

    The generator looks for images on which the student's beliefs are far from the teacher's; the
    student then takes ten steps on exactly these. It may also be told where the teacher looks
    (attention transfer), the generator may not: that would make the student too easy to fool.

    ===========  ===========================  ===================================================
    symbol       variable                     meaning
    ===========  ===========================  ===================================================
    z            ``latent``                   standard normal, ``(B, L)``, one batch per iteration
    x_p = G(z)   ``images``                   in the teacher's normalised space, ``(B, C, H, W)``
    T(x), S(x)   ``*.logits``                 ``(B, K)``
    D_KL         ``divergence``               of the student from the teacher, the reference
    A_l          ``*.maps``                   activations of ``out_indices``, ``(B, C_l, H_l, W_l)``
    beta         ``attention.loss_weight``    250
    n_S          ``student_steps``            10; the generator takes one step
    ===========  ===========================  ===================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``,
            ``latent_size`` to 100 and ``head`` to ``'bn'``.
        student_steps: Steps of the student after each one of the generator.
        fresh_latents: Whether each of them has images of its own instead of those the generator
            has just been trained on. Better in a reproduction (Ferles et al., 2019), and dearer:
            generator and teacher run ``student_steps`` times instead of once.
        temperature: Softens both distributions; there is no factor tau^2.
        reduction: ``'mean'`` divides the divergence by B and K (published code, to which beta
            belongs), ``'batchmean'`` by B only (paper).
        attention: Config of the attention term; ``type`` defaults to ``AttentionTransferLoss``, its
            ``loss_weight`` to 250; 0 leaves it out. ``form='mean'`` is the published code's,
            ``'norm'`` the paper's.
        student_mode: Mode of the student in the generator's step: in ``'train'`` its running
            statistics see these images too, in ``'eval'`` they do not.
        data_preprocessor: See :class:`GenerativeDistiller`.

    Differs from the paper (published code in brackets, whose choice is the default): the KL is a
    mean over classes too [as here]; attention maps differ by their mean square [as here], in the
    paper by their norm. The code makes the ten equal batches of images anew and sends gradient
    back to the generator, to be thrown away; here they are made once, without. The student is the
    same, and so are the generator's weights; only its own running statistics, which nothing uses,
    see two batches per iteration instead of eleven.
    """

    default_types = dict(attention='AttentionTransferLoss')

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        student_steps: int = 10,
        fresh_latents: bool = False,
        temperature: float = 1.0,
        reduction: Literal['mean', 'batchmean'] = 'mean',
        attention: dict | None = None,
        student_mode: Literal['train', 'eval'] = 'train',
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.reduction', reduction, ('mean', 'batchmean'))
        check_choice('model.student_mode', student_mode, ('train', 'eval'))
        check_least('model.student_steps', student_steps, 1)
        if temperature <= 0:
            raise UsageError(f'model.temperature is {temperature}; give a number above 0.')
        generator = dict(latent_size=100, head='bn') | (generator or {})
        super().__init__(teacher, student, generator, data_preprocessor)
        self.attention = self.build_part('attention', attention, loss_weight=250.0)
        if self.attention.loss_weight:
            shapes = dict(student=map_shapes(self.student))
            fit_attention(self.attention, map_shapes(self.teacher), **shapes)
        self.draws = 1 + student_steps if fresh_latents else 1
        self.student_steps = student_steps
        self.temperature = temperature
        self.reduction = reduction
        self.student_mode = student_mode

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration of Algorithm 1: G moves once, then S learns several times."""
        latent, *fresh = self.latents(data)
        logs = self.move_generator(latent, optim_wrapper['generator'])
        lessons = fresh or [latent]  # whose images S learns from
        for lesson in lessons:
            steps = self.student_steps // len(lessons)
            logs |= self.imitate(lesson, steps, optim_wrapper['student'])
        return detached(logs)

    def move_generator(self, latent: Tensor, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """G minimises ``-D_KL(T(x_p) || S(x_p))``, through S and T alike."""
        passing = self.gradient_only_through(self.student, self.student_mode)
        with optim_wrapper.optim_context(self), passing:
            images = self.generator(latent)
            divergence = self.divergence(self.student(images), self.teacher(images))
        optim_wrapper.update_params(-divergence)
        return dict(discrepancy=divergence)

    def imitate(self, latent: Tensor, steps: int, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """S minimises ``D_KL + beta sum_l d(A_l^S, A_l^T)`` on the images of ``latent``."""
        with optim_wrapper.optim_context(self), torch.no_grad():
            images = self.generate(latent)
            teacher = self.teacher.extract(images)
            teacher_maps = [self.attention.condense(feature) for feature in teacher.maps]  # A_l^T
        for _ in range(steps):
            with optim_wrapper.optim_context(self):
                student = self.student.extract(images)
                logs = dict(loss_kl=self.divergence(student.logits, teacher.logits))
                if self.attention.loss_weight:
                    logs['loss_attention'] = self.attention(student.maps, teacher_maps)
                loss = add_up(logs)
            optim_wrapper.update_params(loss)
        return dict(loss_student=loss, **logs)

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """``D_KL(T || S)`` of logits ``(B, K)``, teacher first: the student has to cover it."""
        divergence = kl_divergence(student_logits, teacher_logits, self.temperature, scale=False)
        return divergence / student_logits.shape[1] if self.reduction == 'mean' else divergence
