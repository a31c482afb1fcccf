# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Floors of methods that train a GAN on collected images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Floor


class HiDFDFloor(Floor):
    """An iteration of HiDFD's GAN with its default losses; the moving average is no part of it."""

    monitored = 'loss_g'

    def build(self, model: Any) -> None:
        """Generator, discriminator, teacher, and the weights of classes."""
        self.generator, self.discriminator = model.generator, model.discriminator
        self.phi_t, self.g_t = model.teacher.backbone, model.teacher.head

    def prepare(self, data: dict) -> tuple[Tensor, Tensor]:
        """Collected images in [-1, 1] and the classes the teacher sees in them."""
        labels = self.model.pseudo_labels[data['index']]
        return self.model.gan_preprocessor(data, training=True)['inputs'], labels

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """D moves, then G."""
        real, labels = batch
        latent, wanted = self.draw(real)
        with torch.no_grad():
            images = torch.cat([self.generator(latent, wanted), real])
            seen_fake, seen_real = self.features(images).chunk(2)
        says = self.discriminator(images)
        fake, score = says.score.chunk(2)
        slots = torch.cat([2 * wanted + 1, 2 * labels])
        loss = F.relu(1 - score).mean() + F.relu(1 + fake).mean()
        loss = loss + 2 * F.cross_entropy(says.classes, slots)  # a mean over both halves
        own_fake, own_real = says.aligned.chunk(2)
        pairs = ((seen_real, own_real), (seen_fake, own_fake))
        pairs = (*pairs, (seen_real, own_fake), (seen_fake, own_real))
        apart = torch.stack([(a - b).norm(dim=1).mean() for a, b in pairs]).sum()
        self.update('discriminator', loss + 0.1 * apart)

        latent, wanted = self.draw(real)
        self.discriminator.requires_grad_(False)
        images = self.generator(latent, wanted)
        says = self.discriminator(images)
        slots = 2 * wanted[:, None]
        wrong = says.classes.gather(1, slots + 1) - says.classes.gather(1, slots)
        p = self.g_t(self.features(images)).softmax(1).mean(0)
        smoothing = (self.model.smoothing.weight * p * p.log()).sum()
        score = -says.score.mean()
        self.update('generator', score + wrong.mean() + 0.1 * smoothing)
        self.discriminator.requires_grad_(True)
        return score.detach()

    def draw(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and classes of as many fakes."""
        count, device = len(real), real.device
        latent = torch.randn(count, self.generator.latent_size, device=device).to(real)
        return latent, torch.randint(self.g_t.num_classes, (count,), device=device)

    def features(self, images: Tensor) -> Tensor:
        """The teacher's pooled features of images in [-1, 1]."""
        preprocessor = self.model.test_preprocessor
        images = (127.5 * (images + 1) - preprocessor.mean) / preprocessor.std
        return self.phi_t(images)[-1].mean((2, 3))
