# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the methods share that invert the teacher into a bank of images and distil from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.models.classifiers import Classifier, build_teacher
from mmdfkd.models.losses import KLDivergence
from mmdfkd.utils import check_least
from mmdfkd.utils.precision import at_least_float32

from .base import BaseDistiller, check_adversary


class Synthesis(NamedTuple):
    """What one round of synthesis made.

    Attributes:
        images: In the teacher's normalised space, ``(N, C, H, W)``, without gradient.
        targets: The classes they were made for, int64 ``(N,)``.
        logs: Scalars of the iterate that was kept.
    """

    images: Tensor
    targets: Tensor
    logs: dict[str, Tensor]


class InversionDistiller(BaseDistiller):
    """Base of the methods with an image bank: rounds of synthesis fill it, the student learns.

    A method writes its synthesis in :meth:`synthesize`, which the ``SynthesisHook`` calls before
    epochs and ``tools/synthesize.py`` calls alone; :meth:`train_step` is the other half of every
    such method: distillation on images drawn from the whole bank.

    Args:
        teacher: Config of the teacher.
        student: Config of the student.
        class_weight: Weight of the cross-entropy of T(x) with the classes asked for.
        batch_size: Images N of one round of synthesis.
        iterations: Steps of the optimisation of one round.
        temperature: T of the student's loss ``T^2 KL(T(x) || S(x))``.
        rounds: Rounds of synthesis before each epoch.
        warmup_rounds: Further rounds before the first epoch, to begin with a filled bank.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``: the student's
            augmentation of bank images.

    Raises:
        UsageError: Teacher and student are the same network, or a number is out of range.
    """

    learns_from = 'generated'
    unscaled = 'optimises images'
    teacher: Classifier
    generator: Any  # of those that have one

    def __init__(
        self,
        teacher: dict | Classifier,
        student: dict | Classifier,
        class_weight: float = 1.0,
        batch_size: int = 256,
        iterations: int = 200,
        temperature: float = 20.0,
        rounds: int = 1,
        warmup_rounds: int = 0,
        data_preprocessor: dict | None = None,
    ) -> None:
        check_least('model.batch_size', batch_size, 2)
        check_least('model.iterations', iterations, 1)
        check_least('model.rounds', rounds, 1)
        check_least('model.warmup_rounds', warmup_rounds, 0)
        teacher = build_teacher(teacher)
        check_adversary(student, teacher)
        super().__init__(student, teacher, data_preprocessor=data_preprocessor)
        self.class_weight = class_weight
        self.batch_size = batch_size
        self.iterations = iterations
        self.rounds = rounds
        self.warmup_rounds = warmup_rounds
        self.divergence = KLDivergence(temperature=temperature)

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser for the student; those of images live for one round only."""
        return dict(student=[self.student])

    def rounds_before(self, epoch: int, max_epochs: int) -> int:
        """How many rounds there must have been when this epoch, counted from 0, begins.

        Args:
            epoch: Its number; ``max_epochs`` asks how many there are in all.
            max_epochs: Epochs of the run.
        """
        return self.warmup_rounds + self.rounds * min(epoch + 1, max_epochs)

    @abstractmethod
    def synthesize(
        self,
        optim_wrapper: OptimWrapperDict,
        round_number: int = 0,
        adversary: bool = True,
        on_step: Callable[[], None] = lambda: None,
    ) -> Synthesis:
        """Make one batch of images: the method's synthesis box.

        Randomness comes from torch's global state, which the caller seeds for each round. Whatever
        outlives a round is a parameter, a buffer, or the state of an optimiser of ``roles``.

        Args:
            optim_wrapper: Optimisers by role, for what is trained from round to round.
            round_number: Rounds so far, warm-up included.
            adversary: Whether there is a student to disagree with; without, its term is left out.
            on_step: To be called after each of ``iterations`` steps.
        """

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step on bank images: S minimises ``T^2 KL(T(x) || S(x))``."""
        images = self.data_preprocessor(data, training=True)['inputs']
        with optim_wrapper['student'].optim_context(self):
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            loss = self.divergence(self.student(images), teacher_logits)
        optim_wrapper['student'].update_params(loss)
        return dict(loss_student=loss.detach())

    def draw_targets(self) -> Tensor:
        """Classes of one round's images, uniform at random and in ascending order, ``(N,)``."""
        device = next(self.teacher.parameters()).device
        return torch.randint(self.teacher.num_classes, (self.batch_size,)).sort()[0].to(device)

    def draw_normal(self, *shape: int) -> Tensor:
        """Standard normal numbers ``(N, *shape)``; on the CPU, so that every device draws alike."""
        return torch.randn(self.batch_size, *shape).to(next(self.teacher.parameters()))

    def draw_latent(self) -> Tensor:
        """Standard normal latents ``(N, L)`` of a method's generator."""
        return self.draw_normal(self.generator.latent_size)

    def class_loss(self, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted cross-entropy of T(x) ``(N, K)`` with the classes asked for ``(N,)``."""
        cross_entropy = F.cross_entropy(at_least_float32(teacher_logits), targets)
        return self.class_weight * cross_entropy


def betas_of_gans(config: dict[str, Any]) -> dict[str, Any]:
    """Config of an optimiser; any Adam has the betas that GANs have, unless it says others."""
    return (dict(betas=(0.5, 0.999)) if 'Adam' in str(config['type']) else {}) | config
