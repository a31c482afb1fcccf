# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Floors of the methods that invert the teacher: their rounds of synthesis and their step."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Floor, distance, kl, moments, watch


class InversionFloor(Floor):
    """What the floors of these methods share: the step on bank images, and the best iterate."""

    def build(self, model: Any) -> None:
        """Two networks."""
        self.teacher, self.student = model.teacher, model.student

    def step(self, images: Tensor) -> Tensor:
        """``T^2 KL``."""
        with torch.no_grad():
            logits = self.teacher(images)
        loss = kl(self.student(images), logits, self.model.divergence.temperature)
        self.update('student', loss)
        return loss.detach()

    def synthesize(self) -> Tensor:
        """One round with an adversary: its images ``(N, C, H, W)``."""
        self.student.eval().requires_grad_(False)
        images = self.round()
        self.student.train().requires_grad_(True)
        return images

    @abstractmethod
    def round(self) -> Tensor:
        """The method's own part of it; draws are those of the model, in its order."""

    def adam(self, parameters: list) -> torch.optim.Adam:
        """The optimiser that lives for one round."""
        settings = {k: v for k, v in self.model.optimizer.items() if k != 'type'}
        return torch.optim.Adam(parameters, **settings)

    @staticmethod
    @torch.no_grad()
    def better(best: list[Tensor], loss: Tensor, *tensors: Tensor) -> list[Tensor]:
        """The loss and the tensors of the better of two iterates."""
        now = [loss.detach(), *(tensor.detach() for tensor in tensors)]
        if not best:
            return [tensor.clone() for tensor in now]
        improved = now[0] < best[0]
        return [torch.where(improved, new, old) for new, old in zip(now, best, strict=True)]


class DeepInversionFloor(InversionFloor):
    """A round that optimises pixels."""

    def round(self) -> Tensor:
        """Pixels from noise."""
        model = self.model
        targets = model.draw_targets()
        images = model.draw_noise().requires_grad_()
        optimizer = self.adam([images])
        mean, std = (torch.tensor(getattr(self.teacher, name)) for name in ('mean', 'std'))
        bounds = list(zip((-mean / std).tolist(), ((255 - mean) / std).tolist(), strict=True))
        best: list[Tensor] = []
        for _ in range(model.iterations):
            shift, _ = model.draw_view(model.jitter)
            loss = self.loss(images, images.roll(shift, (2, 3)), targets)
            if model.keep == 'best':
                best = self.better(best, loss, images)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for channel, (low, high) in enumerate(bounds):
                    images[:, channel].clamp_(low, high)
        return best[1] if best else images.detach()

    def loss(self, images: Tensor, view: Tensor, targets: Tensor) -> Tensor:
        """``CE + a_1 L_BN + 2.5e-5 R_TV + 3e-8 R_l2 + a_2 (1 - JS)``."""
        weights = self.model.bn_statistics.loss_weight, self.model.compete.loss_weight
        logits, seen = watch(self.teacher, view, moments)
        differences = (
            view[..., :, :-1] - view[..., :, 1:],
            view[..., :-1, :] - view[..., 1:, :],
            view[..., 1:, :-1] - view[..., :-1, 1:],
            view[..., :-1, :-1] - view[..., 1:, 1:],
        )
        smooth = 2.5e-5 * torch.stack([each.norm() for each in differences]).sum()
        p, q = ((each / 3).softmax(1) for each in (self.student(view), logits))
        p, q, m = (values.clamp(0.01, 0.99) for values in (p, q, (p + q) / 2))
        divergence = (m * (m.log() - (p.log() + q.log()) / 2)).sum(1).mean().clamp(0, 1)
        loss = F.cross_entropy(logits, targets) + weights[0] * distance(seen)
        return loss + smooth + 3e-8 * images.norm() + weights[1] * (1 - divergence)


class CMIFloor(InversionFloor):
    """A round that optimises a new generator, latents, and the head of the contrast."""

    def round(self) -> Tensor:
        """Images out of a generator; their features go to the bank."""
        model = self.model
        model.reset()
        latent = model.draw_latent().requires_grad_()
        targets = model.draw_targets()
        optimizer = self.adam([*model.generator.parameters(), latent])
        best: list[Tensor] = []
        for _ in range(model.iterations):
            images = model.generator(latent)
            loss, features = self.loss(images, targets)
            best = self.better(best, loss, images, features)
            self.update('head', loss)
            optimizer.step()
            optimizer.zero_grad()
        model.bank.add(best[2])
        return best[1]

    def loss(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """``L_bn + CE + 0.8 L_cr - 0.5 KL where both agree``, and the features."""
        model = self.model

        def both(layer: Any, maps: Tensor) -> tuple[tuple, Tensor]:
            return moments(layer, maps), maps.detach().mean((2, 3))

        def average(layer: Any, maps: Tensor) -> Tensor:
            return maps.mean((2, 3))

        view = model.global_view(images)
        logits, seen = watch(self.teacher, view, both)
        _, local = watch(self.teacher, model.local_view(images), average)
        features = torch.cat([*local, *(vector for _, vector in seen)], 1)
        rows = torch.cat([features, model.bank.draw(model.negatives)])
        anchors, keys = rows.chunk(2, 1)
        with torch.no_grad():
            keys = model.head(keys)
        similarity = (model.head(anchors) / model.contrast.temperature) @ keys.T
        own = torch.arange(len(rows), device=rows.device)
        each, count = F.cross_entropy(similarity, own, reduction='none'), len(images)
        contrast = each[:count].mean()
        if len(each) > count:
            contrast = contrast + each[count:].mean()
        loss = distance([statistics for statistics, _ in seen]) + F.cross_entropy(logits, targets)
        adversary = agreeing_kl(self.student(view), logits)
        return loss + 0.8 * contrast - 0.5 * adversary, features


class FastDFKDFloor(InversionFloor):
    """A round that adapts a copy of the meta generator, which then learns of its gradients."""

    def round(self) -> Tensor:
        """Images out of the copy."""
        model = self.model
        generator = copy.deepcopy(model.generator)
        latent = model.draw_latent().requires_grad_()
        targets = model.draw_targets()
        weights = list(generator.parameters())
        groups = [dict(params=weights), dict(params=[latent], lr=model.latent_lr)]
        optimizer = self.adam(groups)
        total = [torch.zeros_like(weight) for weight in weights]
        best: list[Tensor] = []
        for _ in range(model.iterations):
            images = generator(latent)
            view = model.view(images)
            logits, seen = watch(self.teacher, view, moments)
            loss = 10 * distance(self.mixed(seen))
            loss = loss + model.class_weight * F.cross_entropy(logits, targets)
            loss = loss - 1.1 * agreeing_kl(self.student(view), logits)
            best = self.better(best, loss, images)
            loss.backward()
            torch._foreach_add_(total, [weight.grad for weight in weights])
            optimizer.step()
            optimizer.zero_grad()
        self.remember(seen)
        for weight, gradient in zip(model.generator.parameters(), total, strict=True):
            weight.grad = gradient
        self.optimizers['generator'].step()
        self.optimizers['generator'].zero_grad()
        return best[1]

    def mixed(self, seen: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Statistics of the batch, mixed with those of earlier rounds."""
        average = self.model.average
        if not average.updates:
            return seen
        sizes = [len(mean) for mean, *_ in seen]
        earlier = zip(average.mean.split(sizes), average.var.split(sizes), strict=True)
        return [
            (0.1 * mean + 0.9 * old_mean, 0.1 * var + 0.9 * old_var, *remembered)
            for (mean, var, *remembered), (old_mean, old_var) in zip(seen, earlier, strict=True)
        ]

    @torch.no_grad()
    def remember(self, seen: list[tuple[Tensor, ...]]) -> None:
        """Take the last batch into the averages."""
        average = self.model.average
        rate = 0.1 if average.updates else 1.0
        for old, new in ((average.mean, 0), (average.var, 1)):
            old.lerp_(torch.cat([layer[new] for layer in seen]), rate)
        average.updates += 1


def agreeing_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL of the images that both networks put into the same class, mean over all."""
    log_student, log_teacher = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    each = F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(1)
    return (each * (student_logits.argmax(1) == teacher_logits.argmax(1))).mean()
