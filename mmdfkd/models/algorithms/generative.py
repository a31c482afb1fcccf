# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the methods share whose images come out of a generator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.models.modules import statistics_kept
from mmdfkd.utils import UsageError

from .base import BaseDistiller, check_adversary


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

    learns_from = 'generated'
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
        check_adversary(student, teacher)
        super().__init__(student, teacher, data_preprocessor=data_preprocessor)
        self.generator = build_generator(self, 'generator', generator)

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

    @torch.no_grad()
    def sample(
        self, count: int, seed: int = 0, batch_size: int = 256, shown: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images to look at, and the teacher's logits; nothing is changed by looking.

        Args:
            count: How many images.
            seed: Seed of their latents: always the same ones.
            batch_size: At most so many are made at a time.
            shown: How many of them to return, by default all.

        Returns:
            Normalised images ``(shown, C, H, W)`` and logits ``(count, K)``.
        """
        latent = same_latents(self.generator, count, seed)
        with statistics_kept(self.generator):
            parts = map(self.generate, latent.tensor_split(-(-count // batch_size)))
            return seen_by(self.teacher, parts, count if shown is None else shown)


def same_latents(generator: Any, count: int, seed: int) -> Tensor:
    """Latents ``(count, L)`` of a generator that depend on the seed alone."""
    random = torch.Generator().manual_seed(seed)
    latent = torch.randn(count, generator.latent_size, generator=random)
    return latent.to(next(generator.parameters()))


def seen_by(teacher: Classifier, parts: Iterable[Tensor], shown: int) -> tuple[Tensor, Tensor]:
    """The first images ``(shown, C, H, W)`` of batches, and a teacher's logits of all, ``(N, K)``.

    No more than these are held at a time: a thousand classes want ten thousand images.
    """
    images, logits = [], []
    for part in parts:
        logits.append(teacher(part))
        images.append(part[:shown].clone())
        shown -= len(images[-1])
    return torch.cat(images), torch.cat(logits)


def build_generator(method: BaseDistiller, name: str, config: dict | None) -> Any:
    """Build a generator of images like the teacher's.

    Args:
        method: Whose argument it is.
        name: The argument, see :meth:`BaseDistiller.describe_part`.
        config: What a user says of it.

    Raises:
        UsageError: It does not say how long its latents are.
    """
    teacher: Any = method.teacher  # says the shape and the normalisation of the images
    images = dict(input_shape=teacher.input_shape, mean=teacher.mean, std=teacher.std)
    generator = method.build_part(name, config, **images)
    if not hasattr(generator, 'latent_size'):
        raise UsageError(
            f'model.{name}: {type(generator).__name__} has no latent_size. Set '
            'self.latent_size to the length of one latent in its __init__.'
        )
    return generator
