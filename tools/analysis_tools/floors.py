# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The floors of the methods: their formulas in plain torch, which ``benchmark.py`` times.

A floor does the forwards and backwards that the method's formula needs and the same optimiser
steps, on resident tensors, and nothing else. It has to give the gradients of the method's own step:
:func:`check_floor` compares them before any clock starts.
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.models.algorithms import BaseDistiller


class Floor(ABC):
    """A method's step in plain torch, on copies of a model's networks.

    Args:
        model: The model, of which the copies are made.
        optim_wrapper: Its optimisers by role; the floor has equal ones, and clips as they do.

    Attributes:
        monitored: Key of the method's log that :meth:`step` returns.
        moves: Whether parameters move; without, gradients add up.
    """

    monitored = 'loss_student'
    moves = True

    def __init__(self, model: BaseDistiller, optim_wrapper: Any) -> None:
        self.model = copy.deepcopy(model).train()
        self.parameters = trained_by(self.model)
        self.optimizers, self.clip = {}, {}
        for role, parameters in self.parameters.items():
            optimizer = optim_wrapper[role].optimizer
            self.optimizers[role] = type(optimizer)(parameters, **optimizer.defaults)
            self.clip[role] = optim_wrapper[role].clip_grad_kwargs
        self.build(self.model)

    @abstractmethod
    def build(self, model: Any) -> None:
        """Take the networks that the step needs."""

    @abstractmethod
    def prepare(self, data: dict) -> Any:
        """What one step works on, from a batch of the loader; not on the clock."""

    @abstractmethod
    def step(self, batch: Any) -> Tensor:
        """Train on one batch; return the loss that is compared."""

    def update(self, role: str, loss: Tensor) -> None:
        """Move what a role trains."""
        self.backward(loss)
        if not self.moves:
            return
        if self.clip[role]:
            nn.utils.clip_grad_norm_(self.parameters[role], **self.clip[role])
        self.optimizers[role].step()
        self.optimizers[role].zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those there are."""
        loss.backward()

    def follow(self, model: BaseDistiller) -> None:
        """Take over the model's weights: how long max-pooling and ReLU take depends on them."""
        self.model.load_state_dict(model.state_dict())


class KD3Floor(Floor):
    """KD³'s step with its published defaults."""

    monitored = 'loss'

    def build(self, model: Any) -> None:
        """Two backbones, the adapter, two contrastive heads."""
        self.phi_t, self.g_t = model.teacher.backbone, model.teacher.head
        self.phi_s, self.adapter = model.student.backbone, model.student.neck.transfer
        self.e_s, self.e_t = model.student_head.linear, model.teacher_head.linear

    def prepare(self, data: dict) -> Tensor:
        """Augmented, normalised images ``(B, C, H, W)``."""
        return self.model.data_preprocessor(data, training=True)['inputs']

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
        alignment = (weight * (adapted - teacher_map).square().mean((1, 2, 3))).mean()  # Eq. (10)
        student = self.contrast(self.e_s, student_map.mean((2, 3)), student_mixed)
        teacher = self.contrast(self.e_t, teacher_vector, teacher_mixed)
        return alignment + 0.01 * (student + teacher)

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


class GenerativeFloor(Floor):
    """What the floors with a generator share: latents, and a student that only passes gradient."""

    def build(self, model: Any) -> None:
        """Three networks."""
        self.teacher, self.student, self.generator = model.teacher, model.student, model.generator

    def prepare(self, data: dict) -> tuple[Tensor, ...]:
        """As many times latents ``(B, L)`` as the step needs."""
        device = next(self.generator.parameters()).device
        return data['latent'].to(device).unbind(1)

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


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(teacher || student)``, mean over the batch."""
    log_student = F.log_softmax(student_logits / temperature, 1)
    log_teacher = F.log_softmax(teacher_logits / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction='batchmean', log_target=True)
    return temperature**2 * divergence


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


class StatisticsFloor(GenerativeFloor):
    """A floor that reads the inputs of the teacher's BatchNorm layers."""

    def teacher_with_statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the sum over layers of the L2 distances of mean and variance."""
        layers = [m for m in self.teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        terms: list[Tensor] = []

        def record(layer: Any, inputs: tuple[Tensor]) -> None:
            var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
            terms.append((var - layer.running_var).norm() + (mean - layer.running_mean).norm())

        handles = [layer.register_forward_pre_hook(record) for layer in layers]
        logits = self.teacher(images)
        for handle in handles:
            handle.remove()
        return logits, torch.stack(terms).sum()


class DDADFloor(DFADFloor, StatisticsFloor):
    """DDAD's step: DFAD's with BatchNorm statistics."""

    def objective(self, images: Tensor) -> Tensor:
        """``0.01 L_BN - 0.1 D(x)``."""
        logits, distance = self.teacher_with_statistics(images)
        return 0.01 * distance - 0.1 * F.l1_loss(self.student(images), logits)


class DFQFloor(StatisticsFloor):
    """DFQ's step: the generator once, the student several times."""

    def step(self, latents: tuple[Tensor, ...]) -> Tensor:
        """One iteration."""
        first, *lessons = latents
        with self.frozen_student(self.model.student_mode):
            images = self.generator(first)
            logits, distance = self.teacher_with_statistics(images)
            m = logits.softmax(1).mean(0)
            certain = F.cross_entropy(logits, logits.argmax(1))
            objective = distance + certain + 20 * (m * m.log()).sum()
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
            distance = torch.stack([(a - b).square().mean() for a, b in pairs]).sum()
            loss = self.divergence(student_logits, logits)
            loss = loss + self.model.attention.loss_weight * distance
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


#: Floors by the name of their method.
FLOORS: dict[str, type[Floor]] = dict(
    DAFL=DAFLFloor, DDAD=DDADFloor, DFAD=DFADFloor, DFQ=DFQFloor, KD3=KD3Floor, ZSKT=ZSKTFloor
)


def trained_by(model: BaseDistiller) -> dict[str, list[nn.Parameter]]:
    """What each role of a method trains, in a fixed order."""
    parts = {role: nn.ModuleList(modules) for role, modules in model.roles().items()}
    return {
        role: [parameter for parameter in part.parameters() if parameter.requires_grad]
        for role, part in parts.items()
    }


class Backward:
    """Stands in for an ``OptimWrapper``: computes gradients and leaves the parameters alone."""

    optim_context = staticmethod(contextlib.nullcontext)

    def update_params(self, loss: Tensor) -> None:
        """Only the first half of it."""
        loss.backward()


def check_floor(model: BaseDistiller, floor: Floor, data: dict) -> None:
    """Make sure that a method's step and its floor compute the same on one batch.

    Neither moves a parameter, so the gradients of all steps of an iteration add up in both.

    Raises:
        RuntimeError: The losses or the gradients of a role differ: one of the two is wrong.
    """
    model = copy.deepcopy(model).train()
    bare = copy.deepcopy(floor)
    for each in (model, bare.model):
        each.data_preprocessor.augment = []
    bare.moves = False
    torch.manual_seed(0)
    logs = model.train_step(dict(data), {role: Backward() for role in bare.parameters})
    torch.manual_seed(0)
    loss = bare.step(bare.prepare(dict(data)))
    ours = logs[floor.monitored]
    distances = {}
    for role, parameters in trained_by(model).items():
        found = torch.cat([p.grad.flatten() for p in parameters])
        expected = torch.cat([p.grad.flatten() for p in bare.parameters[role]])
        distances[role] = ((found - expected).norm() / expected.norm()).item()
    if not torch.allclose(ours, loss, rtol=1e-5) or max(distances.values()) > 1e-3:
        apart = ', '.join(f'{role} {distance:.1e}' for role, distance in distances.items())
        raise RuntimeError(
            f'our step and its floor differ: losses {ours:.7f} and {loss:.7f}, gradients '
            f'({apart}) of their norm apart; their times would compare two different things'
        )
