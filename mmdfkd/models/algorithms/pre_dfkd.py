# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""PRE-DFKD: Robust and Resource-Efficient Data-Free KD by Generative Pseudo Replay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.modules import gather_batch
from mmdfkd.registry import MODELS, OPTIMIZERS
from mmdfkd.utils.errors import UsageError, check_choice, check_least
from mmdfkd.utils.precision import at_least_float32

from .base import add_up, detached
from .generative import GenerativeDistiller, build_generator, same_latents


@MODELS.register_module()
class PREDFKD(GenerativeDistiller):
    """`Robust and Resource-Efficient Data-Free Knowledge Distillation by Generative Pseudo Replay
    <https://arxiv.org/abs/2201.03019>`_ (AAAI 2022).

    What a generator makes drifts, and the student forgets what it learnt on earlier images. So a
    variational auto-encoder learns from the stream of new images and from its own reproductions of
    older ones, and every batch of the student holds some of the latter. No image is kept: the
    memory is the weights of the auto-encoder.

    ============  ==============================  ================================================
    symbol        variable                        meaning
    ============  ==============================  ================================================
    z             ``latent``                      standard normal, ``(B, L)``, fresh for every step
    G             ``generator``                   makes new images, which are normalised
    M, E          ``memory``, ``encoder``         decoder and encoder of the auto-encoder
    T(x), S(x)    ``*_logits``                    ``(B, K)``
    L_oh          ``one_hot(...)``                cross-entropy of T with its own argmax
    L_ie          ``balance(...)``                minus the entropy of T's mean prediction, base 10
    L_act         ``activation(...)``             minus the mean size of T's features
    JS            ``disagreement(...)``           divergence of S from T, at most 1
    L_V           ``reconstruction(...)``         ``|x' - x| + |T(x') - T(x)| + 1e-5 KL(E(x) ||
                                                  N(0, 1))``, where ``x' = M(E(x))``
    ============  ==============================  ================================================

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        generator: Config of G; ``type`` defaults to ``UpsamplingGenerator``.
        memory: Config of M; ``type`` likewise.
        encoder: Config of E; ``type`` defaults to ``VAEEncoder``. It is made for the latents of M.
        one_hot: Config of L_oh; ``type`` defaults to ``OneHotLoss``, its ``loss_weight`` to 1.
        balance: Config of L_ie; ``type`` defaults to ``ClassBalanceLoss`` (base 10), its
            ``loss_weight`` to 5.
        activation: Config of L_act; ``type`` defaults to ``ActivationLoss``, its ``loss_weight`` to
            0.1.
        disagreement: Config of JS; ``type`` defaults to ``JSDivergence`` (T = 3), its ``reduction``
            to ``'mean'`` over images and classes, as published. ``form='exact'`` and
            ``reduction='batchmean'`` are the definition, about K times larger.
        adversarial_weight: Weight of ``1 - JS``.
        reconstruction: Config of L_V; ``type`` defaults to ``VAELoss``. Its ``views`` may hold
            ``'feature'``, T's features, too.
        tuning: Config of the optimiser whose one step moves the latents of replayed images;
            ``type`` defaults to ``Adam``, its ``lr`` to 0.02.
        student_steps: Student steps after each generator step, on fresh images.
        memory_steps: The first so many of them are followed by a step of the auto-encoder.
        replay_ratio: One image is replayed for so many new ones.
        memory_ratio: The auto-encoder learns from one of so many new images.
        student_mode: Mode of the student in the generator step: in ``'train'`` its running
            statistics see these images too, in ``'eval'`` they do not.
        replay_grad_into_decoder: Whether M also descends the losses that its latents are tuned by,
            when the auto-encoder learns. The published code does not clear that gradient.
        data_preprocessor: See :class:`GenerativeDistiller`.

    Differs from the paper (its published code in brackets): the auto-encoder reproduces the pixels
    and T's logits [as here], in the paper T's responses. Of the code this differs in that the
    student's batch is made without gradient; that M does not learn from the tuning of latents (see
    above); and that there is nothing to replay in the very first step of the auto-encoder only, in
    the code in those of the first iteration.
    """

    default_types = dict(
        memory='UpsamplingGenerator',
        encoder='VAEEncoder',
        one_hot='OneHotLoss',
        balance='ClassBalanceLoss',
        activation='ActivationLoss',
        disagreement='JSDivergence',
        reconstruction='VAELoss',
        tuning='Adam',
    )
    unscaled = 'tunes latents'

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        memory: dict | None = None,
        encoder: dict | None = None,
        one_hot: dict | None = None,
        balance: dict | None = None,
        activation: dict | None = None,
        disagreement: dict | None = None,
        adversarial_weight: float = 1.0,
        reconstruction: dict | None = None,
        tuning: dict | None = None,
        student_steps: int = 10,
        memory_steps: int = 4,
        replay_ratio: int = 8,
        memory_ratio: int = 2,
        student_mode: Literal['train', 'eval'] = 'train',
        replay_grad_into_decoder: bool = False,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_choice('model.student_mode', student_mode, ('train', 'eval'))
        if not 1 <= memory_steps <= student_steps:
            raise UsageError(
                f'model.memory_steps is {memory_steps}; give a number from 1 to '
                f'model.student_steps, which is {student_steps}.'
            )
        check_least('model.replay_ratio', replay_ratio, 1)
        check_least('model.memory_ratio', memory_ratio, 1)
        super().__init__(teacher, student, generator, data_preprocessor)
        self.memory = build_generator(self, 'memory', memory)
        self.encoder = self.build_part(
            'encoder',
            encoder,
            input_shape=self.teacher.input_shape,
            latent_size=self.memory.latent_size,
        )
        self.one_hot = self.build_part('one_hot', one_hot, loss_weight=1.0)
        self.balance = self.build_part('balance', balance, loss_weight=5.0)
        self.activation = self.build_part('activation', activation, loss_weight=0.1)
        self.disagreement = self.build_part('disagreement', disagreement, reduction='mean')
        self.reconstruction = self.build_part('reconstruction', reconstruction)
        self.tuning = self.describe_part('tuning', tuning, lr=0.02)
        self.adversarial_weight = adversarial_weight
        self.student_steps = student_steps
        self.memory_steps = memory_steps
        self.replay_ratio = replay_ratio
        self.memory_ratio = memory_ratio
        self.student_mode = student_mode
        self.replay_grad_into_decoder = replay_grad_into_decoder
        self.noise_draws = math.ceil(memory_steps / memory_ratio)
        # Of replayed images: latents for both learners, and noise for the auto-encoder.
        replay_draws = math.ceil((student_steps + 2 * memory_steps) / replay_ratio)
        self.draws = 1 + student_steps + self.noise_draws + replay_draws
        self.has_memory = False

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser each for student, generator and auto-encoder."""
        return dict(**super().roles(), memory=[self.memory, self.encoder])

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Shape ``(draws, L)`` of one item of the training data; L is the longer of two."""
        return self.draws, max(self.generator.latent_size, self.memory.latent_size)

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One iteration: G moves once; then S learns from new and replayed images, M and E too."""
        novel, noises, replays = self.deal(self.latents(data))
        logs = self.move_generator(next(novel), optim_wrapper['generator'])
        for step, latent in enumerate(novel):
            logs['loss_student'], views = self.imitate(
                latent, next(replays), optim_wrapper['student']
            )
            if step < self.memory_steps:
                replayed = next(replays), next(replays)
                logs['loss_memory'] = self.remember(
                    views, next(noises), *replayed, optim_wrapper['memory']
                )
        return logs

    def deal(
        self, latents: Sequence[Tensor]
    ) -> tuple[Iterator[Tensor], Iterator[Tensor], Iterator[Tensor]]:
        """Deal the batch's draws, ``draws`` times ``(B, L)``, to their uses.

        Returns:
            Latents of new images ``(B, L_G)``, noise of the auto-encoder ``(B / memory_ratio,
            L_M)``, and both for replayed images ``(B / replay_ratio, L_M)``.

        Raises:
            UsageError: So small a batch leaves less than two images for one of the latter.
        """
        size = len(latents[0])
        for name in ('replay_ratio', 'memory_ratio'):
            ratio = getattr(self, name)
            if size // ratio < 2:
                raise UsageError(
                    f'A batch of {size} latents in each process and model.{name}={ratio} make a '
                    f'share of {size // ratio}, and the variance of less than 2 images is not '
                    f'defined. Raise train_dataloader.batch_size to {2 * ratio} or more, or lower '
                    f'model.{name}.'
                )
        first = 1 + self.student_steps
        novel = [latent[:, : self.generator.latent_size] for latent in latents[:first]]
        others = [latent[:, : self.memory.latent_size] for latent in latents[first:]]
        noises, replays = others[: self.noise_draws], others[self.noise_draws :]
        return iter(novel), shares(noises, self.memory_ratio), shares(replays, self.replay_ratio)

    # Generator ------------------------------------------------------------------------------

    def move_generator(self, latent: Tensor, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """G minimises ``L_oh + 5 L_ie + 0.1 L_act + (1 - JS)``."""
        passing = self.gradient_only_through(self.student, self.student_mode)
        with optim_wrapper.optim_context(self), passing:
            loss, logs = self.generator_loss(self.generator(latent))
        optim_wrapper.update_params(loss)
        return detached(logs)

    def generator_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_G and what is logged of it: weighted terms, and the disagreement as it is."""
        teacher = self.teacher.extract(images)
        logs = dict(
            loss_one_hot=self.one_hot(teacher.logits),
            loss_balance=self.balance(teacher.logits),
            loss_activation=self.activation(teacher.vector),
        )
        loss = add_up(logs)
        if self.adversarial_weight:
            # Here, and only here, T takes no gradient: G turns S away, not T.
            student_logits = self.student(images)
            logs['discrepancy'] = self.disagreement(student_logits, teacher.logits.detach())
            loss = loss + self.adversarial_weight * (1 - logs['discrepancy'])
        return loss, logs

    # Student --------------------------------------------------------------------------------

    def imitate(
        self, latent: Tensor, replay_latent: Tensor, optim_wrapper: OptimWrapper
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """S minimises ``mean |S(x) - T(x)|`` on new and replayed images together.

        Returns:
            The loss, and the views of the new images, as :meth:`views` names them.
        """
        with optim_wrapper.optim_context(self):
            novel = self.generate(latent)
            images = torch.cat([novel, self.replay(replay_latent, 'eval')])
            with torch.no_grad():
                views = self.views(images)
            loss = F.l1_loss(self.student(images), views['logit'])
        optim_wrapper.update_params(loss)
        # In float32, since the memory's forward may be another optimiser's, without autocast.
        views = {name: at_least_float32(view[: len(novel)]) for name, view in views.items()}
        return loss.detach(), views

    # Memory ---------------------------------------------------------------------------------

    def remember(
        self,
        views: dict[str, Tensor],
        noise: Tensor,
        replay_latent: Tensor,
        replay_noise: Tensor,
        optim_wrapper: OptimWrapper,
    ) -> Tensor:
        """M and E minimise L_V on some of the new images and, once there are any, replayed ones.

        Args:
            views: Of the new images; the first of them count, as many as there is noise.
            noise: Of the latents of new images, ``(N, L)``.
            replay_latent: ``(R, L)``.
            replay_noise: ``(R, L)``.
            optim_wrapper: Optimiser of both.
        """
        targets = {name: view[: len(noise)] for name, view in views.items()}
        if self.has_memory:
            with optim_wrapper.optim_context(self):
                replayed = self.replay(replay_latent, 'train', self.replay_grad_into_decoder)
                with torch.no_grad():
                    old = self.views(replayed)
            targets = {name: torch.cat([view, old[name]]) for name, view in targets.items()}
            noise = torch.cat([noise, replay_noise])
        with optim_wrapper.optim_context(self):
            mean, log_variance = self.encoder(targets['pixel'])
            images = self.memory(mean + (log_variance / 2).exp() * noise)
            loss = self.reconstruction(self.views(images), targets, mean, log_variance)
        optim_wrapper.update_params(loss)
        self.has_memory = True
        return loss.detach()

    def replay(
        self, latent: Tensor, mode: Literal['eval', 'train'], into_decoder: bool = False
    ) -> Tensor:
        """Images ``(R, C, H, W)`` from memory, without gradient, of latents ``(R, L)``.

        One step makes the latents such that the images are of all classes and of certain ones, and
        holds them near the standard normal distribution.

        Args:
            latent: Standard normal; is not changed.
            mode: Mode of M. In ``'train'`` its BatchNorm sees, and remembers, the images before
                and after the step.
            into_decoder: Whether the gradient of the step is left in M, too; its mode stays as it
                is then.
        """
        passing = nullcontext() if into_decoder else self.gradient_only_through(self.memory, mode)
        with passing:
            latent = latent.clone().requires_grad_()
            optimizer = OPTIMIZERS.build(dict(self.tuning, params=[latent]))
            logits = self.teacher(self.memory(latent))
            loss = self.balance(logits) + self.one_hot(logits) + moment_distance(latent)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                return self.memory(latent.detach())  # autocast remembers what `latent` was

    def views(self, images: Tensor) -> dict[str, Tensor]:
        """What the auto-encoder may have to reproduce of images, by the names of ``VAELoss``."""
        teacher = self.teacher.extract(images)
        return dict(pixel=images, logit=teacher.logits, feature=teacher.vector)

    def sample_memory(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Replayed images to look at, and the teacher's logits; nothing is changed by looking.

        Args:
            count: How many images, 2 or more.
            seed: Seed of their latents: always the same ones.

        Returns:
            Normalised images ``(count, C, H, W)`` and logits ``(count, K)``.
        """
        images = self.replay(same_latents(self.memory, count, seed), 'eval')
        return images, self.teacher(images)

    # Whether there is something to replay belongs to the state: a resumed run goes on replaying.

    def get_extra_state(self) -> Tensor:
        """Whether the auto-encoder has learnt anything yet, for checkpoints."""
        return torch.tensor(self.has_memory)

    def set_extra_state(self, state: Tensor) -> None:
        """Take that over from a checkpoint."""
        self.has_memory = bool(state)


def moment_distance(latent: Tensor) -> Tensor:
    r"""Distance of the moments of latents from those of the standard normal distribution.

    .. math:: \frac1L \sum_j (\sigma_j^2 - 1)^2 + \mu_j^2

    with the (unbiased) variance and mean of each dimension over the batches of all processes.

    Args:
        latent: ``(R, L)``, two or more in all.
    """
    variance, mean = torch.var_mean(gather_batch(latent), dim=0)
    return (variance - 1).square().mean() + mean.square().mean()


def shares(latents: Sequence[Tensor], ratio: int) -> Iterator[Tensor]:
    """Cut each batch ``(B, L)`` into ``ratio`` batches ``(B // ratio, L)``.

    Processes that take turns in a batch cut it, together, as one process does.
    """
    for latent in latents:
        yield from latent.split(len(latent) // ratio)[:ratio]
