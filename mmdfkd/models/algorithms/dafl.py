# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""DAFL: Data-Free Learning of Student Networks."""

from __future__ import annotations

from typing import Literal

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmdfkd.models.classifiers import Classifier, Features
from mmdfkd.models.losses import KLDivergence
from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice, check_least
from mmdfkd.utils.precision import at_least_float32

from .base import add_up, detached
from .generative import GenerativeDistiller


@MODELS.register_module()
class DAFL(GenerativeDistiller):
    """`Data-Free Learning of Student Networks <https://arxiv.org/abs/1904.01186>`_ (ICCV 2019).

    The frozen teacher takes the discriminator's place: images that it finds certain, that excite
    its features and that cover all classes look like its training data. The student imitates it on
    those images and has no say in how they are made.

    ===========  ============================  ===================================================
    symbol       variable                      meaning
    ===========  ============================  ===================================================
    z            ``latent``                    standard normal, ``(B, L)``
    x = G(z)     ``images``                    in the teacher's normalised space, ``(B, C, H, W)``
    t, s         ``teacher.logits``, student   ``(B, K)``
    f            ``teacher.vector``            before the last linear layers, ``(B, D)``; 120 wide
                                               in LeNet5
    L_oh         ``one_hot(t)``                cross-entropy with the teacher's own argmax
    L_a          ``activation(f)``             ``-mean |f|``
    L_ie         ``balance(t)``                minus the entropy of the mean prediction, base 10
    alpha, beta  ``activation.loss_weight``,   0.1, 5
                 ``balance.loss_weight``
    ===========  ============================  ===================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``.
        one_hot: Config of L_oh; ``type`` defaults to ``OneHotLoss``, its ``loss_weight`` to 1.
        activation: Config of L_a; ``type`` defaults to ``ActivationLoss``, its ``loss_weight`` to
            0.1. With ``reduction='l1'``, the formula of the paper, it should be D times smaller.
        balance: Config of L_ie; ``type`` defaults to ``ClassBalanceLoss`` (base 10), its
            ``loss_weight`` to 5. The weight of a paper that divides by K is K times larger.
        student_batch: The student learns from the generator's own batch of this step
            (``'shared'``, published code: one teacher pass serves both networks), or from a fresh
            one of the updated generator (``'fresh'``, the paper's algorithm).
        student_steps: Student steps per generator step; from the second on, each has a fresh batch.
        temperature: Of the divergence that the student minimises. Other than 1 it is multiplied
            by its square.
        data_preprocessor: See :class:`GenerativeDistiller`.

    Differs from the paper (its published code in brackets, whose choice is the default): L_ie has
    no factor 1/K and base 10 [as here]; L_a is a mean, not a norm [as here]; L_oh has a weight [as
    here]; the student shares the generator's batch [as here] and minimises the divergence, not the
    cross-entropy [as here; the gradient is the same].
    """

    default_types = dict(
        one_hot='OneHotLoss', activation='ActivationLoss', balance='ClassBalanceLoss'
    )

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        one_hot: dict | None = None,
        activation: dict | None = None,
        balance: dict | None = None,
        student_batch: Literal['shared', 'fresh'] = 'shared',
        student_steps: int = 1,
        temperature: float = 1.0,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.student_batch', student_batch, ('shared', 'fresh'))
        check_least('model.student_steps', student_steps, 1)
        super().__init__(teacher, student, generator, data_preprocessor)
        self.one_hot = self.build_part('one_hot', one_hot, loss_weight=1.0)
        self.activation = self.build_part('activation', activation, loss_weight=0.1)
        self.balance = self.build_part('balance', balance, loss_weight=5.0)
        self.divergence = KLDivergence(temperature=temperature)
        self.student_batch = student_batch
        self.draws = student_steps + (student_batch == 'fresh')

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration: the generator pleases the teacher, then the student imitates it.

        With a shared batch this is the published step, one backward of ``L_G + L_S``: images and
        teacher's logits are detached for the student, so the two halves have nothing in common.
        """
        latent, *student_latents = self.latents(data)
        images, logits, logs = self.move_generator(latent, optim_wrapper['generator'])
        if self.student_batch == 'shared':
            loss_student = self.imitate(images, logits, optim_wrapper['student'])
        for latent in student_latents:
            loss_student = self.imitate_anew(latent, optim_wrapper['student'])
        return dict(loss_student=loss_student, **logs)

    def move_generator(
        self, latent: Tensor, optim_wrapper: OptimWrapper
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """G minimises ``L_oh + alpha L_a + beta L_ie``. The images were made before it moves.

        Returns:
            Images ``(B, C, H, W)``, teacher logits ``(B, K)``, both detached, and what is logged.
        """
        with optim_wrapper.optim_context(self):
            images = self.generator(latent)
            teacher = self.teacher.extract(images)  # with gradient to the images
            loss, logs = self.generator_loss(teacher)
        optim_wrapper.update_params(loss)
        # In float32, since the student's forward may be another optimiser's, without autocast.
        return at_least_float32(images.detach()), teacher.logits.detach(), detached(logs)

    def generator_loss(self, teacher: Features) -> tuple[Tensor, dict[str, Tensor]]:
        """L_G of what the teacher sees, and its three weighted terms."""
        logs = dict(
            loss_one_hot=self.one_hot(teacher.logits),
            loss_activation=self.activation(teacher.vector),
            loss_balance=self.balance(teacher.logits),
        )
        return add_up(logs), logs

    def imitate_anew(self, latent: Tensor, optim_wrapper: OptimWrapper) -> Tensor:
        """S imitates on fresh images."""
        with optim_wrapper.optim_context(self), torch.no_grad():
            images = self.generate(latent)
            teacher_logits = self.teacher(images)
        return self.imitate(images, teacher_logits, optim_wrapper)

    def imitate(
        self, images: Tensor, teacher_logits: Tensor, optim_wrapper: OptimWrapper
    ) -> Tensor:
        """S minimises ``KL(softmax(t) || softmax(s))``."""
        with optim_wrapper.optim_context(self):
            loss = self.divergence(self.student(images), teacher_logits)
        optim_wrapper.update_params(loss)
        return loss.detach()
