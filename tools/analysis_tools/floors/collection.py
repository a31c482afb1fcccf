# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Floors of the methods that learn from collected images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Floor, kl


class KD3Floor(Floor):
    """KD³'s step with its published defaults."""

    monitored = 'loss'

    def build(self, model: Any) -> None:
        """Two backbones, the adapter, two contrastive heads."""
        self.phi_t, self.g_t = model.teacher.backbone, model.teacher.head
        self.phi_s, self.adapter = model.student.backbone, model.student.neck.transfer
        self.e_s, self.e_t = model.student_head.linear, model.teacher_head.linear

    def step(self, images: Tensor) -> Tensor:
        """One step."""
        loss = self.loss(images)
        self.update('student', loss)
        return loss.detach()

    def loss(self, images: Tensor) -> Tensor:
        """Eq. (18) on one normalised batch."""
        mixed = self.mix(images)
        with torch.no_grad():
            teacher_map = self.phi_t(images)[-1]
            teacher_vector = teacher_map.mean((2, 3))
            teacher_mixed = self.phi_t(mixed)[-1].mean((2, 3))
            teacher_logits = self.g_t(teacher_vector)
        student_map = self.phi_s(images)[-1]
        student_mixed = self.phi_s(mixed)[-1].mean((2, 3))
        adapted = self.adapter(student_map)
        with torch.no_grad():  # Eq. (9)
            student_logits = self.g_t(adapted.mean((2, 3)))
            weight = (student_logits - teacher_logits + 1e-6).norm(dim=1).sigmoid()
        alignment = self.align(adapted, teacher_map, weight)
        student = self.contrast(self.e_s, student_map.mean((2, 3)), student_mixed)
        teacher = self.contrast(self.e_t, teacher_vector, teacher_mixed)
        return alignment + 0.01 * (student + teacher)

    @staticmethod
    def align(adapted: Tensor, teacher_map: Tensor, weight: Tensor) -> Tensor:
        """Eq. (10)."""
        return (weight * (adapted - teacher_map).square().mean((1, 2, 3))).mean()

    def select(self, views: Iterable[Tensor]) -> Tensor:
        """Eqs. (2) to (8) at ``a = 0.5``: indices of the selected images."""
        self.model.eval()
        logits = torch.cat([self.combine(images) for images in views])  # Eqs. (2), (3)
        self.model.train()
        confidence, labels = logits.softmax(1).max(1)  # Eq. (5)
        counts = torch.bincount(labels)
        share = counts / counts.max()
        return self.confident(confidence, labels, 0.95 * share / (2 - share))  # Eqs. (6) to (8)

    @torch.no_grad()
    def combine(self, images: Tensor) -> Tensor:
        """Logits of both networks, halved."""
        return 0.5 * (self.model.teacher(images) + self.model.student(images))

    @staticmethod
    def confident(confidence: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
        """Indices of the images above the threshold of their class."""
        return (confidence > thresholds[labels]).nonzero().flatten()

    @staticmethod
    def mix(images: Tensor) -> Tensor:
        """Eqs. (11) and (12)."""
        batch, _, height, width = images.shape
        alpha = torch.full((batch,), 0.1, device=images.device)
        m = torch.distributions.Beta(alpha, alpha, validate_args=False).sample().view(-1, 1, 1, 1)
        j = torch.randperm(batch, device=images.device)
        mu = images.mean((2, 3), keepdim=True)
        centred = images - mu
        variance = centred.square().sum((2, 3), keepdim=True) / (height * width - 1)
        sigma = (variance + 1e-6).sqrt()
        sigma_mixed = m * sigma + (1 - m) * sigma[j]
        return centred.mul_(sigma_mixed / sigma).add_(m * mu + (1 - m) * mu[j])

    @staticmethod
    def contrast(head: nn.Module, clean: Tensor, mixed: Tensor) -> Tensor:
        """Eqs. (13) to (16) in the form of the published code."""
        batch = len(clean)
        z = F.normalize(head(torch.cat([clean, mixed])), dim=1)
        logits = (z / 0.3) @ z.T
        logits.detach().fill_diagonal_(-torch.inf)  # softmax passes no gradient there
        positive = torch.arange(2 * batch, device=z.device).roll(batch)
        return F.cross_entropy(logits, positive)


class PublishedKD3(KD3Floor):
    """The same with the loops over images of the published code, which are no floor."""

    @staticmethod
    def align(adapted: Tensor, teacher_map: Tensor, weight: Tensor) -> Tensor:
        """Eq. (10), image by image: each backward copies the gradient of the whole batch."""
        errors = F.mse_loss(adapted, teacher_map, reduction='none')
        for i, factor in enumerate(weight):
            errors[i] = errors[i] * factor
        return errors.mean()

    def combine(self, images: Tensor) -> Tensor:
        """The student's pass keeps a graph, which nobody uses."""
        with torch.no_grad():
            teacher_logits = self.model.teacher(images)
        return 0.5 * (teacher_logits + self.model.student(images).detach())

    @staticmethod
    def confident(confidence: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
        """Image by image."""
        pairs = enumerate(zip(confidence, labels, strict=True))
        return torch.tensor([i for i, (p, label) in pairs if p > thresholds[label]])


class DFNDFloor(Floor):
    """DFND's step: both terms for the student, then the noisy one again for the matrix."""

    monitored = 'loss'

    def build(self, model: Any) -> None:
        """Two networks, and the parameters W of the matrix."""
        self.teacher, self.student = model.teacher, model.student
        self.weight, self.accuracy = model.adaptation.weight, model.adaptation.accuracy

    def step(self, images: Tensor) -> Tensor:
        """One step."""
        with torch.no_grad():
            teacher_logits = self.teacher(images)
            labels, matrix = teacher_logits.argmax(1), self.matrix()
        student_logits = self.student(images)
        divergence = kl(student_logits, teacher_logits, self.model.temperature)
        loss = divergence + self.noisy(student_logits, matrix, labels)
        self.update('student', loss)
        self.update('adaptation', self.noisy(student_logits.detach(), self.matrix(), labels))
        return loss.detach()

    def matrix(self) -> Tensor:
        """Q: a on the diagonal, the rest of each row by the softmax of W."""
        wrong = (1 - self.accuracy) * self.weight.softmax(1)
        right = self.accuracy * torch.eye(len(wrong), device=wrong.device)
        return F.pad(wrong, (0, 1)).tril(-1) + F.pad(wrong, (1, 0)).triu(1) + right

    @staticmethod
    def noisy(student_logits: Tensor, matrix: Tensor, labels: Tensor) -> Tensor:
        """``-ln (softmax(s) Q)_y``, mean over the batch."""
        return F.nll_loss((student_logits.softmax(1) @ matrix).log(), labels)
