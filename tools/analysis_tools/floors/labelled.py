# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Floors of the methods that learn from original, labelled data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Floor, kl


class KDFloor(Floor):
    """KD's step."""

    monitored = 'loss'

    def build(self, model: Any) -> None:
        """Two networks."""
        self.teacher, self.student = model.teacher, model.student

    def prepare(self, data: dict) -> tuple[Tensor, Tensor]:
        """Augmented, normalised images ``(B, C, H, W)`` and labels ``(B,)``."""
        batch = self.model.data_preprocessor(data, training=True)
        return batch['inputs'], batch['label']

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """``(1 - alpha) CE + alpha T^2 KL``."""
        images, labels = batch
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        logits = self.student(images)
        divergence = kl(logits, teacher_logits, self.model.divergence.temperature)
        alpha = self.model.alpha
        loss = (1 - alpha) * F.cross_entropy(logits, labels) + alpha * divergence
        self.update('student', loss)
        return loss.detach()


class STKDFloor(KDFloor):
    """STKD's step: the same on mixed images, one weight per batch."""

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """``CE(S(x~), y~) + 0.1 T^2 KL``; the cross-entropy is linear in y~."""
        images, labels = batch
        alpha = torch.ones(1, 2, device=images.device)
        weight = torch.distributions.Dirichlet(alpha, validate_args=False).sample()[0, 0]
        partners = torch.randperm(len(images), device=images.device)
        mixed = images[partners].lerp_(images, weight.to(images.dtype))
        with torch.no_grad():
            teacher_logits = self.teacher(mixed)
        logits = self.student(mixed)
        own, other = F.cross_entropy(logits, labels), F.cross_entropy(logits, labels[partners])
        divergence = kl(logits, teacher_logits, self.model.divergence.temperature)
        loss = weight * own + (1 - weight) * other + 0.1 * divergence
        self.update('student', loss)
        return loss.detach()


class CTKDFloor(KDFloor):
    """CTKD's step: the scratch teacher by labels; the student by labels and both teachers."""

    def build(self, model: Any) -> None:
        """Three networks."""
        super().build(model)
        self.scratch = model.scratch_teacher

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One step of both."""
        images, labels = batch
        with torch.no_grad():
            expert = [self.attend(maps) for maps in self.teacher.backbone(images)]
        scratch_logits = self.scratch(images)
        scratch_loss = F.cross_entropy(scratch_logits, labels)
        self.update('scratch_teacher', scratch_loss)
        maps = self.student.backbone(images)
        logits = self.student.head(maps[-1].mean((2, 3)))
        hint = (scratch_logits.detach() - logits).square().sum(1).mean()
        pairs = zip(map(self.attend, maps), expert, strict=True)
        attention = torch.stack([(a - b).square().mean() for a, b in pairs]).sum()
        loss = F.cross_entropy(logits, labels) + 0.03 * hint
        loss = loss + self.model.attention.loss_weight * attention
        self.update('student', loss)
        return (loss + scratch_loss).detach()

    @staticmethod
    def attend(maps: Tensor) -> Tensor:
        """Normalised attention ``(B, H W)``."""
        return F.normalize(maps.square().mean(1).flatten(1), dim=1)
