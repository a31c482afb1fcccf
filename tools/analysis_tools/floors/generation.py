# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Floors of the methods with a generator and an adversary."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Floor, distance, kl, moments, watch


class GenerativeFloor(Floor):
    """What the floors with a generator share: latents, and a student that only passes gradient."""

    def build(self, model: Any) -> None:
        """Three networks."""
        self.teacher, self.student, self.generator = model.teacher, model.student, model.generator

    def prepare(self, data: dict) -> tuple[Tensor, ...]:
        """As many times latents ``(B, L)`` as the step needs."""
        device = next(self.generator.parameters()).device
        return data['latent'].to(device, non_blocking=True).unbind(1)

    @contextlib.contextmanager
    def frozen_student(self, mode: str) -> Any:
        """Gradient passes through the student and stops at its parameters."""
        self.student.train(mode == 'train').requires_grad_(False)
        yield
        self.student.train().requires_grad_(True)

    @torch.no_grad()
    def fresh(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Images to imitate on and the teacher's logits."""
        images = self.generator(latent)
        return images, self.teacher(images)


class DAFLFloor(GenerativeFloor):
    """DAFL's published step: one pass of the teacher for both networks."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """Generator on the teacher's wishes, student on the same images, then on fresh ones."""
        first, *others = latents
        images = self.generator(first)
        maps = self.teacher.backbone(images)[-1]
        logits = self.teacher.head(vector := maps.mean((2, 3)))
        m = logits.softmax(1).mean(0)
        certain = F.cross_entropy(logits, logits.argmax(1))
        self.update('generator', certain - 0.1 * vector.abs().mean() + 5 * (m * m.log10()).sum())
        loss = self.imitate(images.detach(), logits.detach())
        for latent in others:
            loss = self.imitate(*self.fresh(latent))
        return loss

    def imitate(self, images: Tensor, logits: Tensor) -> Tensor:
        """One student step."""
        loss = kl(self.student(images), logits, self.model.divergence.temperature)
        self.update('student', loss)
        return loss.detach()


class DFADFloor(GenerativeFloor):
    """DFAD's step: L1 between logits, minimised by the student, maximised by the generator."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """The student several times, the generator once."""
        *lessons, last = latents
        for latent in lessons:
            images, logits = self.fresh(latent)
            loss = F.l1_loss(self.student(images), logits)
            self.update('student', loss)
        with self.frozen_student(self.model.student_mode):
            objective = self.objective(self.generator(last))
        self.update('generator', objective)
        return loss.detach()

    def objective(self, images: Tensor) -> Tensor:
        """``-D(x)``."""
        return -F.l1_loss(self.student(images), self.teacher(images))


class DDADFloor(DFADFloor):
    """DDAD's step: DFAD's with BatchNorm statistics."""

    def objective(self, images: Tensor) -> Tensor:
        """``0.01 L_BN - 0.1 D(x)``."""
        logits, seen = watch(self.teacher, images, moments)
        return 0.01 * distance(seen) - 0.1 * F.l1_loss(self.student(images), logits)


class DFQFloor(GenerativeFloor):
    """DFQ's step: the generator once, the student several times."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """One iteration."""
        first, *lessons = latents
        with self.frozen_student(self.model.student_mode):
            images = self.generator(first)
            logits, seen = watch(self.teacher, images, moments)
            m = logits.softmax(1).mean(0)
            certain = F.cross_entropy(logits, logits.argmax(1))
            objective = distance(seen) + certain + 20 * (m * m.log()).sum()
            objective = objective - kl(self.student(images), logits)
        self.update('generator', objective)
        for latent in lessons:
            self.generator.eval()
            images, logits = self.fresh(latent)
            self.generator.train()
            loss = kl(self.student(images), logits)
            self.update('student', loss)
        return loss.detach()


class ZSKTFloor(GenerativeFloor):
    """ZSKT's step: one batch of images, whose attention maps the student imitates too."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """One iteration of Algorithm 1."""
        (latent,) = latents
        with self.frozen_student(self.model.student_mode):
            images = self.generator(latent)
            objective = -self.divergence(self.student(images), self.teacher(images))
        self.update('generator', objective)
        with torch.no_grad():
            images = self.generator(latent)
            logits, attention = self.look(self.teacher, images)
        for _ in range(self.model.student_steps):
            student_logits, student_attention = self.look(self.student, images)
            pairs = zip(student_attention, attention, strict=True)
            apart = torch.stack([(a - b).square().mean() for a, b in pairs]).sum()
            loss = self.divergence(student_logits, logits)
            loss = loss + self.model.attention.loss_weight * apart
            self.update('student', loss)
        return loss.detach()

    @staticmethod
    def look(network: Any, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and normalised attention maps of each stage."""
        maps = network.backbone(images)
        attention = [F.normalize(m.square().mean(1).flatten(1), dim=1) for m in maps]
        return network.head(maps[-1].mean((2, 3))), attention

    @staticmethod
    def divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """KL, mean over batch and classes."""
        return kl(student_logits, teacher_logits) / student_logits.shape[1]


class PREDFKDFloor(GenerativeFloor):
    """PRE-DFKD's step: the generator once, then student and memory on new and replayed images."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """One iteration."""
        novel, noises, replays = self.deal(latents)
        self.move_generator(next(novel))
        for number, latent in enumerate(novel):
            with torch.no_grad():
                new = self.generator(latent)
            images = torch.cat([new, self.replay(next(replays), 'eval')])
            with torch.no_grad():
                logits = self.teacher(images)
            loss = F.l1_loss(self.student(images), logits)
            self.update('student', loss)
            if number < self.model.memory_steps:
                replayed = next(replays), next(replays)
                self.remember(new, logits[: len(new)], next(noises), *replayed)
        return loss.detach()

    def deal(self, latents: tuple[Tensor, ...]) -> tuple[Any, Any, Any]:
        """Latents of new images, noise of the auto-encoder, and both for replayed images."""
        model = self.model
        first, second = 1 + model.student_steps, 1 + model.student_steps + model.noise_draws
        novel = [latent[:, : model.generator.latent_size] for latent in latents[:first]]
        others = [latent[:, : model.memory.latent_size] for latent in latents[first:]]
        size = len(latents[0])
        noises, replays = (
            [part for latent in group for part in latent.split(size // ratio)[:ratio]]
            for group, ratio in (
                (others[: second - first], model.memory_ratio),
                (others[second - first :], model.replay_ratio),
            )
        )
        return iter(novel), iter(noises), iter(replays)

    def move_generator(self, latent: Tensor) -> None:
        """The teacher's wishes, and disagreement."""
        with self.frozen_student(self.model.student_mode):
            images = self.generator(latent)
            vector = self.teacher.backbone(images)[-1].mean((2, 3))
            logits = self.teacher.head(vector)
            p = (self.student(images) / 3).softmax(1)
            q = (logits.detach() / 3).softmax(1)
            p, q, m = (values.clamp(0.01, 0.99) for values in (p, q, (p + q) / 2))
            divergence = (m * (m.log() - (p.log() + q.log()) / 2)).mean().clamp(0, 1)
            certain = F.cross_entropy(logits, logits.argmax(1))
            objective = certain + self.imbalance(logits) - 0.1 * vector.abs().mean() - divergence
        self.update('generator', objective)

    @staticmethod
    def imbalance(logits: Tensor) -> Tensor:
        """``5 L_ie``."""
        m = logits.softmax(1).mean(0)
        return 5 * (m * m.log10()).sum()

    def replay(self, latent: Tensor, mode: str) -> Tensor:
        """Images of latents that have moved one step."""
        memory = self.model.memory
        memory.train(mode == 'train').requires_grad_(False)
        latent = latent.clone().requires_grad_()
        optimizer = torch.optim.Adam([latent], lr=0.02)
        logits = self.teacher(memory(latent))
        variance, mean = torch.var_mean(latent, 0)
        loss = (variance - 1).square().mean() + mean.square().mean()
        (self.imbalance(logits) + F.cross_entropy(logits, logits.argmax(1)) + loss).backward()
        optimizer.step()
        with torch.no_grad():
            images = memory(latent)
        memory.train().requires_grad_(True)
        return images

    def remember(
        self, new: Tensor, logits: Tensor, noise: Tensor, latent: Tensor, replay_noise: Tensor
    ) -> None:
        """One step of the auto-encoder on some new and some replayed images."""
        targets, logits = new[: len(noise)], logits[: len(noise)]
        if self.model.has_memory:
            old = self.replay(latent, 'train')
            with torch.no_grad():
                logits = torch.cat([logits, self.teacher(old)])
            targets, noise = torch.cat([targets, old]), torch.cat([noise, replay_noise])
        mean, log_variance = self.model.encoder(targets)
        images = self.model.memory(mean + (log_variance / 2).exp() * noise)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        errors = F.l1_loss(images, targets) + F.l1_loss(self.teacher(images), logits)
        self.update('memory', errors + 1e-5 * divergence)
        self.model.has_memory = True
