# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the methods share whose images come out of a generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.models.modules import statistics_kept
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .base import BaseDistiller, build_teacher


class GenerativeDistiller(BaseDistiller):
    """Base of the methods with a generator. No image is read: batches are latents.

    A method adds its losses and its algorithm box. It says in ``draws`` how many latents per image
    one step uses; :meth:`latents` hands them out.

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        generator: Config of the generator; ``type`` defaults to ``UpsamplingGenerator``. Image
            shape and normalisation are the teacher's.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``; generated images
            are born normalised and do not pass it.

    Raises:
        UsageError: Teacher and student are the same network, so that no adversary is left.
    """

    teacher: Classifier
    draws: int = 1

    default_types = dict(generator='UpsamplingGenerator')

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        generator: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        teacher = build_teacher(teacher)
        if student is teacher:
            raise UsageError(
                'model.student is the teacher itself, so their discrepancy is always zero and the '
                'generator has no adversary. Give the student a network of its own.'
            )
        super().__init__(student, teacher, data_preprocessor=data_preprocessor)
        self.generator = MODELS.build(
            dict(
                type='UpsamplingGenerator',
                input_shape=teacher.input_shape,
                mean=teacher.mean,
                std=teacher.std,
            )
            | (generator or {})
        )

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for the student, one for the generator."""
        return dict(student=[self.student], generator=[self.generator])

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Shape ``(draws, L)`` of one item of the training data."""
        return self.draws, self.generator.latent_size

    def latents(self, data: dict) -> tuple[Tensor, ...]:
        """The batch's latents, ``draws`` times ``(B, L)``, on the device of the generator."""
        latent = data['latent'].to(next(self.generator.parameters()).device, non_blocking=True)
        return latent.unbind(1)

    @torch.no_grad()
    def generate(self, latent: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to learn from, without gradient, of latents ``(B, L)``."""
        return self.generator(latent)

    @contextmanager
    def gradient_only_through(
        self, network: nn.Module, mode: Literal['train', 'eval']
    ) -> Iterator[None]:
        """Inside, a network passes gradient on to the images and receives none itself.

        Args:
            network: The student, while the generator is trained against it.
            mode: In ``'train'`` mode its BatchNorm uses, and remembers, the statistics of these
                images.
        """
        training = network.training
        network.train(mode == 'train').requires_grad_(False)
        try:
            yield
        finally:
            network.train(training).requires_grad_(True)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Images to look at, and the teacher's logits; nothing is changed by looking.

        Args:
            count: How many images.
            seed: Seed of their latents: always the same ones.

        Returns:
            Normalised images ``(count, C, H, W)`` and logits ``(count, K)``.
        """
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(count, self.generator.latent_size, generator=generator)
        with statistics_kept(self.generator):
            images = self.generator(latent.to(next(self.generator.parameters()).device))
        return images, self.teacher(images)
