# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a floor is, and the check that it computes what its method computes."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
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

    def prepare(self, data: dict) -> Any:
        """What one step works on, not on the clock: augmented, normalised ``(B, C, H, W)``."""
        return self.model.data_preprocessor(data, training=True)['inputs']

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


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(teacher || student)``, mean over the batch."""
    log_student = F.log_softmax(student_logits / temperature, 1)
    log_teacher = F.log_softmax(teacher_logits / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction='batchmean', log_target=True)
    return temperature**2 * divergence


def watch(
    network: nn.Module, images: Tensor, look: Callable[[Any, Tensor], Any]
) -> tuple[Tensor, list[Any]]:
    """One pass of a network, and what ``look(layer, maps)`` sees of each BatchNorm's input."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[Any] = []

    def record(layer: Any, inputs: tuple[Tensor]) -> None:
        seen.append(look(layer, inputs[0]))

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    logits = network(images)
    for handle in handles:
        handle.remove()
    return logits, seen


def moments(layer: Any, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and variance of a BatchNorm's input, and those that it remembers; each ``(C,)``."""
    variance, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
    return mean, variance, layer.running_mean, layer.running_var


def distance(seen: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """Sum over layers of the L2 distances of :func:`moments`."""
    terms = [(mean - mu).norm() + (var - sigma).norm() for mean, var, mu, sigma in seen]
    return torch.stack(terms).sum()


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

    Neither moves a parameter, so the gradients of all steps of an iteration add up in both. They
    are compared in double precision, where no unit falls on the other side of zero by rounding.

    Raises:
        RuntimeError: The losses or the gradients of a role differ: one of the two is wrong.
    """
    model = copy.deepcopy(model).train()
    bare = copy.deepcopy(floor)
    for each in (model, bare.model):
        each.double().data_preprocessor.augment = []
    data = {name: v.double() if v.is_floating_point() else v for name, v in data.items()}
    bare.moves = False
    torch.manual_seed(0)
    logs = model.train_step(dict(data), {role: Backward() for role in bare.parameters})
    torch.manual_seed(0)
    loss = bare.step(bare.prepare(dict(data)))
    ours = logs[floor.monitored]
    distances = {}
    for role, parameters in trained_by(model).items():
        found, expected = ([p.grad for p in group] for group in (parameters, bare.parameters[role]))
        if any(gradient is not None for gradient in (*found, *expected)):
            distances[role] = apart(found, expected)
    if not torch.allclose(ours, loss, rtol=1e-5) or max(distances.values()) > 1e-5:
        listed = ', '.join(f'{role} {distance:.1e}' for role, distance in distances.items())
        raise RuntimeError(
            f'our step and its floor differ: losses {ours:.7f} and {loss:.7f}, gradients '
            f'({listed}) of their norm apart; their times would compare two different things'
        )


def check_round(model: Any, floor: Any, iterations: int = 2) -> None:
    """Make sure that a method's round of synthesis and its floor's make the same images.

    Both go through ``iterations`` steps with optimisers of their own. Adam makes of a rounding
    error in a gradient near zero a step of full size, so only a few steps can be compared.

    Raises:
        RuntimeError: Images, or what a role has learnt of the round, differ.
    """
    model, bare = copy.deepcopy(model).train(), copy.deepcopy(floor)
    for each in (model, bare.model):
        each.iterations = iterations
        if hasattr(each, 'keep'):
            each.keep = 'last'  # the best of few may be the noise to begin with
    trained = trained_by(model)
    wrappers = {
        role: OptimWrapper(type(optimizer)(trained[role], **optimizer.defaults))
        for role, optimizer in bare.optimizers.items()
    }
    before = {role: [p.detach().clone() for p in group] for role, group in trained.items()}
    torch.manual_seed(0)
    found = model.synthesize(wrappers, model.warmup_rounds).images
    torch.manual_seed(0)
    expected = bare.synthesize()
    distances = {'images': apart([found], [expected])}
    for role, start in before.items():
        ours, theirs = (
            [(end - begin).detach() for end, begin in zip(group, start, strict=True)]
            for group in (trained[role], bare.parameters[role])
        )
        if any(moved.any() for moved in (*ours, *theirs)):
            distances[role] = apart(ours, theirs)
    if max(distances.values()) > 2e-3:
        listed = ', '.join(f'{name} {distance:.1e}' for name, distance in distances.items())
        raise RuntimeError(
            f'our round of synthesis and its floor differ by ({listed}) of their norms; their '
            'times would compare two different things'
        )


def apart(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """How far lists of tensors are apart, as a share of the norm of the second; None is zero."""
    pairs = [
        [torch.zeros(()) if each is None else each.detach() for each in pair]
        for pair in zip(found, expected, strict=True)
    ]
    difference, norm = (
        torch.stack([each.norm() for each in tensors]).norm()
        for tensors in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return (difference / norm.clamp(min=torch.finfo(norm.dtype).tiny)).item()
