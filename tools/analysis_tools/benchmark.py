# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How near a method's training comes to its floor: ``python tools/analysis_tools/benchmark.py``.

The floor of a step is a plain torch loop on resident, normalised images that does the forwards and
backwards of the method's formula and nothing else; that of a selection pass is the student's
forward over such images. Both stand below, beside what they are compared with, and before a clock
starts the two must give the same loss, gradients included, on the same images.

Everything runs in one process, in alternating blocks; a ratio is the median over pairs of
neighbouring blocks. Ratios travel to other machines, absolute times do not. On one CPU thread the
clock is the processor time of this process, which other processes leave alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmdfkd.engine import DistillRunner, LogitsCache
from mmdfkd.models.algorithms import KD3
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import load_config
from mmdfkd.utils.files import write_json
from mmdfkd.utils.reporting import report_errors

CONFIGS = Path(__file__).parents[2] / 'configs'
PAIRS = ('lenet5', 'resnet8')
LARGEST_POOL = 60_000  # images of the step benchmark; more is only more memory


# Floors ---------------------------------------------------------------------------------------


class KD3Floor:
    """KD³'s step with its published defaults in plain torch, on copies of a model's networks."""

    def __init__(self, model: KD3, optimizer: torch.optim.Optimizer) -> None:
        model = copy.deepcopy(model)
        self.phi_t, self.g_t = model.teacher.backbone, model.teacher.head
        self.phi_s, self.adapter = model.student.backbone, model.student.neck.transfer
        self.e_s, self.e_t = model.student_head.linear, model.teacher_head.linear
        trained = nn.ModuleList([self.phi_s, self.adapter, self.e_s, self.e_t])
        self.parameters = dict(trained.named_parameters())
        self.optimizer = type(optimizer)(self.parameters.values(), **optimizer.defaults)

    def step(self, images: Tensor) -> None:
        """Train on one normalised batch ``(B, C, H, W)``."""
        self.loss(images).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

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
        m = torch.distributions.Beta(alpha, alpha).sample().view(-1, 1, 1, 1)
        j = torch.randperm(batch, device=images.device)
        mu = images.mean((2, 3), keepdim=True)
        centred = images - mu
        variance = centred.square().sum((2, 3), keepdim=True) / (height * width - 1)
        sigma = (variance + 1e-6).sqrt()
        sigma_mixed = m * sigma + (1 - m) * sigma[j]
        return centred * (sigma_mixed / sigma) + (m * mu + (1 - m) * mu[j])

    @staticmethod
    def contrast(head: nn.Module, clean: Tensor, mixed: Tensor) -> Tensor:
        """Eqs. (13) to (16) in the form of the published code."""
        batch = len(clean)
        z = F.normalize(head(torch.cat([clean, mixed])), dim=1)
        logits = z @ z.T / 0.3
        logits = logits.masked_fill(torch.eye(2 * batch, device=z.device).bool(), -torch.inf)
        positive = torch.arange(2 * batch, device=z.device).roll(batch)
        return F.cross_entropy(logits, positive)


FLOORS = {'KD3': KD3Floor}


def check_floor(runner: DistillRunner, floor: KD3Floor, images: Tensor) -> None:
    """Make sure that our step and its floor compute the same on uint8 ``images``.

    Raises:
        RuntimeError: The losses or the gradients differ: one of the two is wrong.
    """
    model, wrapper = copy.deepcopy((runner.model, runner.optim_wrapper))
    optimizer = wrapper['student'].optimizer
    preprocessor, augment = model.data_preprocessor, model.data_preprocessor.augment
    gradients: list[Tensor] = []
    optimizer.step = lambda: gradients.extend(p.grad.clone() for p in group if p.grad is not None)
    group = [p for part in optimizer.param_groups for p in part['params']]
    model.train()
    preprocessor.augment = []
    torch.manual_seed(0)
    ours = model.train_step(dict(inputs=images), wrapper)['loss']
    preprocessor.augment = augment
    torch.manual_seed(0)
    plain = copy.deepcopy(floor)
    theirs = plain.loss(preprocessor.normalize(images))
    theirs.backward()
    expected = [p.grad for p in plain.parameters.values()]
    norm, other = (torch.stack([g.norm() for g in part]).norm() for part in (gradients, expected))
    same = torch.allclose(ours, theirs, rtol=1e-5) and torch.allclose(norm, other, rtol=1e-3)
    if not same or len(gradients) != len(expected):
        raise RuntimeError(
            f'our step and its floor differ: loss {ours:.7f} and {theirs:.7f}, gradient norm '
            f'{norm:.6f} and {other:.6f}; timing them would compare two different things'
        )


# Clock ----------------------------------------------------------------------------------------


class Clock:
    """Seconds, read when the device has finished what it was given."""

    def __init__(self, device: str) -> None:
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
        alone = device == 'cpu' and torch.get_num_threads() == 1
        self.read = time.process_time if alone else time.perf_counter
        self.name = 'processor time' if alone else 'wall clock'

    def __call__(self) -> float:
        """Now."""
        self.synchronize()
        return self.read()

    def time(self, action: Callable[[], Any]) -> float:
        """Seconds that ``action`` takes."""
        start = self()
        action()
        return self() - start


def compare(clock: Clock, pairs: int, **actions: Callable[[], Any]) -> dict[str, list[float]]:
    """Time actions in turn, ``pairs`` times each, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(pairs + 1):
        for name, action in actions.items():
            times[name].append(clock.time(action))
    return {name: values[1:] for name, values in times.items()}


def median(values: list[float]) -> float:
    """The middle one."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def ratio(ours: list[float], bare: list[float]) -> float:
    """Median of paired ratios."""
    return median([a / b for a, b in zip(ours, bare, strict=True)])


class InterleaveHook(Hook):
    """Stop a Runner's clock after every block of iterations and let its rivals run a block.

    Of the Runner everything is on its clock: loader, preprocessor, every hook, the log lines.
    """

    priority = 'LOWEST'

    def __init__(self, clock: Clock, block: int, rivals: dict[str, Callable[[], None]]) -> None:
        self.clock = clock
        self.block = block
        self.rivals = rivals
        self.times: dict[str, list[float]] = {name: [] for name in ('runner', *rivals)}

    def before_train_epoch(self, runner: Any) -> None:
        """Start."""
        self.started = self.clock()

    def after_train_iter(self, runner: Any, batch_idx: int, **ignored: Any) -> None:
        """Let the others run, then go on."""
        if (batch_idx + 1) % self.block == 0:
            self.times['runner'].append(self.clock() - self.started)
            for name, rival in self.rivals.items():
                self.times[name].append(self.clock.time(rival))
            self.started = self.clock()


# Measurements ---------------------------------------------------------------------------------


def build_runner(args: argparse.Namespace, folder: str, **train_dataloader: Any) -> DistillRunner:
    """The real runner of the pair's config, trained on noise and logging to a file only."""
    algorithm = args.method.lower()
    stem = f'{algorithm}_{args.pair}_{args.pair}-half_1xb128-40e_digits'
    cfg = load_config(CONFIGS / algorithm / f'{stem}.py')
    cfg.launcher = 'none'
    cfg.work_dir = tempfile.mkdtemp(dir=folder)
    cfg.experiment_name = Path(cfg.work_dir).name  # mmengine shares objects between namesakes
    cfg.train_dataloader.update(train_dataloader)
    cfg.train_cfg.max_epochs = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = cfg.default_hooks.progress = None
    for name in ('runtime_info', 'timer', 'logger'):
        cfg.default_hooks[name].interval = args.iterations
    runner = DistillRunner.from_cfg(cfg)
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)
    return runner


def measure_step(args: argparse.Namespace, clock: Clock, batch: int, folder: str) -> dict:
    """One training step: through the Runner, called directly, and the floor."""
    blocks = args.pairs + 1
    pool = dict(type='NoisePool', num_images=batch * args.iterations * blocks)
    runner = build_runner(args, folder, batch_size=batch, dataset=pool)
    runner.model.selector = None  # the whole pool, in one epoch
    dataset = runner.train_dataloader.dataset
    model, preprocessor = runner.model, runner.model.data_preprocessor
    device = next(model.parameters()).device
    images = dataset.__getitems__(range(batch * min(args.iterations, 8)))['inputs'].to(device)
    raw = [dict(inputs=part) for part in images.split(batch)]
    normalised = [preprocessor.normalize(part).contiguous() for part in images.split(batch)]
    floor: Any = None

    def bare() -> None:
        for i in range(args.iterations):
            floor.step(normalised[i % len(normalised)])

    def train_step() -> None:
        for i in range(args.iterations):
            model.train_step(raw[i % len(raw)], runner.optim_wrapper)

    hook = InterleaveHook(clock, args.iterations, dict(floor=bare, train_step=train_step))

    class Check(Hook):
        def before_train_epoch(self, runner: Any) -> None:
            nonlocal floor
            optimizer = runner.optim_wrapper['student'].optimizer
            floor = FLOORS[args.method](model, optimizer)
            check_floor(runner, floor, raw[0]['inputs'])

    runner.register_hook(Check())
    runner.register_hook(hook)
    runner.train()
    times = {name: values[1:] for name, values in hook.times.items()}
    step = {name: 1e3 * median(values) / args.iterations for name, values in times.items()}
    return dict(
        batch=batch,
        ratio_runner=ratio(times['runner'], times['floor']),
        ratio_train_step=ratio(times['train_step'], times['floor']),
        ratio_runner_over_train_step=ratio(times['runner'], times['train_step']),
        **{f'ms_{name}': value for name, value in step.items()},
        us_per_image=1e3 * step['runner'] / batch,
    )


def main() -> None:
    pass
