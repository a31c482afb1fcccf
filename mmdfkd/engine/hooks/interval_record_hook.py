# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Losses and times of training steps, read from the device once per logging interval."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from mmengine.hooks import IterTimerHook, LoggerHook, RuntimeInfoHook
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError

from ..optimizers.role_wrapper import RoleOptimWrapper


@HOOKS.register_module()
class IntervalRuntimeInfoHook(RuntimeInfoHook):
    """Record what ``train_step`` returns as means over ``interval`` iterations.

    mmengine's hook reads every scalar in every iteration, which makes the host wait for the device
    each time and its history grow without bound. This one keeps the scalars where they are, reads
    them all at once, and stops the run there when a loss is not finite: before the next checkpoint
    is written. A loop that counts iterations is read after its last one too; its interval should
    divide that of checkpoints.

    Args:
        interval: Iterations between two readings; those between two lines of the log by default.
    """

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self.steps: list[dict[str, Tensor]] = []

    def before_train(self, runner: Any) -> None:
        """Read as often as is logged."""
        super().before_train(runner)
        self.interval = self.interval or interval_of_log(runner)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Learning rates are recorded with the losses."""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Keep the step's scalars; read the kept ones at the interval's end."""
        if outputs is not None and not _are_scalars(outputs):
            raise UsageError(
                f'train_step of the method returned {str(outputs)[:80]}. Return a dict of detached '
                'scalar tensors to log, such as dict(loss=loss.detach()).'
            )
        if outputs:
            self.steps.append(outputs)
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        last = last or (by_iteration and self.is_last_train_iter(runner))
        if self.every_n_inner_iters(batch_idx, self.interval) or last:
            self._read(runner)
            if by_iteration:
                self._check_weights(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Stop before a checkpoint is written if the last step broke what no loss has seen yet."""
        self._check_weights(runner)

    @staticmethod
    def _check_weights(runner: Any) -> None:
        state = runner.model.state_dict().values()
        finite = [value.isfinite().all() for value in state if value.is_floating_point()]
        if not torch.stack(finite).all():
            raise UsageError(diverged(runner, ['weights']))

    def _read(self, runner: Any) -> None:
        hub = runner.message_hub
        hub.update_info('iter', runner.iter)
        for role, values in runner.optim_wrapper.get_lr().items():
            hub.update_scalar(f'train/{role}', values[0])
        if not self.steps:
            return
        names = [name for step in self.steps for name in step]
        scalars = [value.float() for step in self.steps for value in step.values()]
        self.steps = []
        for role, norm in clipped_norms(runner.optim_wrapper).items():
            names.append(f'{role}_grad_norm')
            scalars.append(norm)
        recorded: dict[str, list[float]] = {}  # steps need not all return the same
        for name, value in zip(names, torch.stack(scalars).tolist(), strict=True):
            recorded.setdefault(name, []).append(value)
        means = {name: sum(values) / len(values) for name, values in recorded.items()}
        broken = [name for name, mean in means.items() if not math.isfinite(mean)]
        if broken:
            raise UsageError(diverged(runner, broken))
        for name, mean in means.items():
            hub.update_scalar(f'train/{name}', mean)


def _are_scalars(outputs: Any) -> bool:
    """Whether these are scalar tensors by name."""
    values = outputs.values() if isinstance(outputs, dict) else [None]
    return all(isinstance(value, Tensor) and value.ndim == 0 for value in values)


def interval_of_log(runner: Any) -> int:
    """Iterations between two lines of the log."""
    return next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 50)


def clipped_norms(optim_wrapper: Any) -> dict[str, Tensor]:
    """Mean norms of gradients since the last call, by role, of those roles that clip them."""
    norms = {
        role: wrapper.take_grad_norm()
        for role, wrapper in optim_wrapper.items()
        if isinstance(wrapper, RoleOptimWrapper)
    }
    return {role: norm.float() for role, norm in norms.items() if norm is not None}


def diverged(runner: Any, names: list[str]) -> str:
    """Say what became NaN or infinite, what was kept and what to do."""
    last = runner.message_hub.get_info('last_ckpt')
    kept = f'The last good checkpoint is {last}' if last else 'No checkpoint was written yet'
    return (
        f'{", ".join(names)} became NaN or infinite in epoch {runner.epoch + 1}, iteration '
        f'{runner.iter + 1}. {kept}. Lower the learning rate (optim_wrapper.*.optimizer.lr), clip '
        'gradients (optim_wrapper.*.clip_grad=dict(max_norm=5)), or train without --amp.'
    )


@HOOKS.register_module()
class IntervalTimerHook(IterTimerHook):
    """Record time and data time per step as means over ``interval`` iterations, and the time left.

    mmengine's hook records them in every iteration, also of a validation, in a history that grows.
    Time left counts epochs where the run counts epochs, since selection changes their length.

    Args:
        interval: Iterations between two records; those between two lines of the log by default.
    """

    def __init__(self, interval: int | None = None) -> None:
        super().__init__()
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        """Start the clock; record as often as is logged."""
        super().before_train(runner)
        self.interval = self.interval or interval_of_log(runner)
        self.started = time.perf_counter()
        self.first = self._done(runner, 0)

    # mmengine calls these for training, validation and test.

    def _before_epoch(self, runner: Any, mode: str = 'train') -> None:
        """Start an interval; an earlier validation's times are no part of this one's mean."""
        self.interval = self.interval or interval_of_log(runner)
        if mode != 'train':
            for name in ('time', 'data_time'):
                runner.message_hub.log_scalars.pop(f'{mode}/{name}', None)
        self._restart()

    def _before_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = 'train'
    ) -> None:
        """The data has arrived."""
        self.data_time += time.perf_counter() - self.mark

    def _after_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """The step is done; record at the interval's end."""
        self.mark = time.perf_counter()
        self.count += 1
        loader = getattr(runner, f'{mode}_dataloader')
        last = self.end_of_epoch(loader, batch_idx)
        if not (self.every_n_inner_iters(batch_idx, self.interval) or last):
            return
        hub, each = runner.message_hub, (self.mark - self.since) / self.count
        hub.update_scalar(f'{mode}/data_time', self.data_time / self.count)
        hub.update_scalar(f'{mode}/time', each)
        if mode == 'train':
            done = self._done(runner, batch_idx + 1)
            rate = (self.mark - self.started) / max(done - self.first, 1e-9)
            hub.update_info('eta', rate * (1 - done))
        else:
            hub.update_info('eta', each * (len(loader) - batch_idx - 1))
        self._restart()

    def _after_epoch(self, runner: Any, mode: str = 'train') -> None:
        """Training goes on where a validation stood between two of its iterations."""
        self._restart()

    @staticmethod
    def _done(runner: Any, steps: int) -> float:
        """Share of the whole training that is behind us."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return (runner.iter + bool(steps)) / runner.max_iters
        share = steps / max(len(runner.train_dataloader), 1)
        return (runner.epoch + share) / runner.max_epochs

    def _restart(self) -> None:
        self.since = self.mark = time.perf_counter()
        self.data_time = 0.0
        self.count = 0
