# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Schedules of learning rates where epochs are shorter than pools, and runs longer than planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdfkd.utils import UsageError


def check_schedules(schedulers: Mapping[str, Any]) -> None:
    """Epochs of a selection are shorter than the pool, by which mmengine converts to iterations.

    Raises:
        UsageError: A schedule would be converted, and not have come to its end at the end.
    """
    for role, config in schedulers.items():
        for each in config if isinstance(config, (list, tuple)) else [config]:
            if isinstance(each, Mapping) and each.get('convert_to_iter_based'):
                raise UsageError(
                    f'param_scheduler.{role}: convert_to_iter_based counts iterations of the whole '
                    'pool, but model.selector makes epochs shorter, so the schedule would never '
                    'end. Leave it out, or set by_epoch=False and count iterations.'
                )


def check_beginnings(schedulers: Mapping[str, Any], epochs: int, iterations: int) -> None:
    """A schedule begins before the run is over.

    Raises:
        UsageError: It does not.
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
