# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How long a run is: what begins, ends and goes on in its epochs and iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from mmdfkd.utils import UsageError


def check_schedules(
    schedulers: Mapping[str, Any], epochs: int, iterations: int, selects: bool
) -> None:
    """A schedule begins before the run is over, and ends with it.

    Args:
        schedulers: Configs by role.
        epochs: Of the run.
        iterations: Likewise.
        selects: Whether epochs of a selection are shorter than the pool, by whose length mmengine
            converts epochs to iterations.

    Raises:
        UsageError: One does not.
    """
    for role, config in schedulers.items():
        for each in config if isinstance(config, (list, tuple)) else [config]:
            if not isinstance(each, Mapping):
                continue
            unit, last = ('epochs', epochs) if each.get('by_epoch', True) else ('steps', iterations)
            if each.get('begin', 0) >= last:
                raise UsageError(
                    f'param_scheduler.{role}: {each["type"]} begins after {each["begin"]} {unit}, '
                    f'and the run has {last}. Leave it out (param_scheduler.{role}=[]), lower its '
                    'begin, or raise train_cfg.max_epochs.'
                )
            if selects and each.get('convert_to_iter_based'):
                raise UsageError(
                    f'param_scheduler.{role}: convert_to_iter_based counts iterations of the whole '
                    'pool, but model.selector makes epochs shorter, so the schedule would never '
                    'end. Leave it out, or set by_epoch=False and count iterations.'
                )


def check_length(iterations: int, warm_up: int, optim_wrapper: Mapping[str, Any]) -> None:
    """A run is long enough for every role to take a step.

    Args:
        iterations: Of the run.
        warm_up: The first ones, without the student.
        optim_wrapper: Configs by role, or what was built of them.

    Raises:
        UsageError: It is not.
    """
    if warm_up >= iterations:
        raise UsageError(
            f'model.warmup_iterations is {warm_up}, and the run has {iterations} iterations in '
            'all, so that the student would learn nothing. Raise train_cfg.max_epochs, or lower it.'
        )
    for role, wrapper in optim_wrapper.items():
        counts = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict) else 1
        if counts > iterations:
            raise UsageError(
                f'optim_wrapper.{role}.accumulative_counts is {counts}, and the run has '
                f'{iterations} iterations in all, so that no step would be taken. Lower it, or '
                'raise train_cfg.max_epochs.'
            )


def check_epochs(loop: Any, doing: str) -> None:
    """A loop has epochs.

    Args:
        loop: Of a training.
        doing: Who does what before each of them, for the message.

    Raises:
        UsageError: It has none.
    """
    if not isinstance(loop, EpochBasedTrainLoop):
        raise UsageError(
            f"{doing}, and train_cfg has none. Set train_cfg=dict(type='EpochBasedTrainLoop', "
            'max_epochs=...).'
        )


def lengthen(scheduler: Any, end: int) -> None:
    """Let a scheduler go on to ``end``: by default that of its run, which may be longer now.

    It did not take the step with which its run was over.
    """
    was_over = scheduler._global_step == scheduler.end < end
    scheduler.end = end
    if was_over:
        scheduler._global_step -= 1
        scheduler.step()


def all_schedulers(schedulers: Any) -> list[Any]:
    """Schedulers of one optimiser or of several roles in one list."""
    roles = schedulers.values() if isinstance(schedulers, dict) else [schedulers or ()]
    return [scheduler for role in roles for scheduler in role]
