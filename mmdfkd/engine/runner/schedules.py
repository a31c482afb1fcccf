# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How long a run is: what begins, ends and goes on in its epochs and iterations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop

from mmdfkd.registry import PARAM_SCHEDULERS, class_of
from mmdfkd.utils import UsageError


def check_schedules(
    schedulers: Mapping[str, Any], epochs: int, iterations: int, selects: bool, in_epochs: bool
) -> None:
    """A schedule begins before the run is over, and ends with it.

    Args:
        schedulers: Configs by role.
        epochs: Of the run.
        iterations: Likewise.
        selects: Whether epochs of a selection are shorter than the pool, by whose length mmengine
            converts epochs to iterations.
        in_epochs: Whether the run has epochs at all.

    Raises:
        UsageError: One does not.
    """
    for role, config in schedulers.items():
        for each in config if isinstance(config, (list, tuple)) else [config]:
            if not isinstance(each, Mapping):
                continue
            by_epoch, converted = each.get('by_epoch', True), each.get('convert_to_iter_based')
            unit, last = ('epochs', epochs) if by_epoch else ('steps', iterations)
            steps = not needs_metrics(class_of(PARAM_SCHEDULERS, each))
            counts_epochs = steps and by_epoch and not in_epochs
            if counts_epochs and not (converted and 'end' in each):
                raise UsageError(
                    f'param_scheduler.{role}: {each["type"]} counts epochs, and train_cfg has '
                    'none. Set its by_epoch=False and count iterations, or '
                    'convert_to_iter_based=True and an end.'
                )
            if each.get('begin', 0) >= last and not counts_epochs:
                raise UsageError(
                    f'param_scheduler.{role}: {each["type"]} begins after {each["begin"]} {unit}, '
                    f'and the run has {last}. Leave it out (param_scheduler.{role}=[]), lower its '
                    f'begin, or raise train_cfg.{"max_epochs" if in_epochs else "max_iters"}.'
                )
            if selects and converted:
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


#: What a scheduler changes as it steps; all else in its state comes from its config and its run.
MOVING = {'_global_step', 'last_step', '_last_value'}


class Schedules:
    """What the schedules of a run were before its first step, for a checkpoint that is resumed.

    A run that goes on as it began takes its schedules from the checkpoint. One that is longer now,
    or has other schedules, rates or numbers of iterations, goes on where a run of its own config
    would be by now: its schedules take the steps of what was done.

    Args:
        schedulers: By role, just built.
        optimizers: By role.
    """

    def __init__(self, schedulers: Mapping[str, list], optimizers: Mapping[str, Any]) -> None:
        self.optimizers = optimizers
        self.schedulers = {role: schedulers.get(role, []) for role in optimizers.keys()}
        self.states = {
            role: [scheduler.state_dict() for scheduler in each]
            for role, each in self.schedulers.items()
        }
        names = {
            role: ('lr', *(scheduler.param_name for scheduler in each))
            for role, each in self.schedulers.items()
        }
        self.values = {  # with initial_lr, and what OneCycleLR adds: max_lr and min_lr
            role: [
                {key: value for key, value in group.items() if key.endswith(each)}
                for group in optimizers[role].param_groups
            ]
            for role, each in names.items()
        }

    def changed(self, role: str, known: Sequence[Mapping[str, Any]]) -> bool:
        """Whether those of a role are others than those of a checkpoint, which has been loaded."""
        own = self.states[role]
        if not own and not known:  # others than schedules may have changed the rate since
            groups = self.optimizers[role].param_groups
            began = [group.get('initial_lr', group['lr']) for group in groups]
            return began != [values['lr'] for values in self.values[role]]
        return len(own) != len(known) or any(map(differ, own, known))

    def replay(self, role: str, epochs: int, iterations: int) -> None:
        """Step those of a role as a run does that has done so much."""
        if any(map(needs_metrics, self.schedulers[role])):
            for scheduler, state in zip(self.schedulers[role], self.states[role], strict=True):
                scheduler.end = state['end']  # what it has done depends on what was measured
            return
        for group, values in zip(
            self.optimizers[role].param_groups, self.values[role], strict=True
        ):
            group.update(values)
        for scheduler, state in zip(self.schedulers[role], self.states[role], strict=True):
            scheduler.load_state_dict(state)
        in_epochs = [each for each in self.schedulers[role] if each.by_epoch]
        in_iterations = [each for each in self.schedulers[role] if not each.by_epoch]
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Detected call of `scheduler')
            for epoch in range(epochs):
                first, stop = (iterations * count // epochs for count in (epoch, epoch + 1))
                take_steps(in_iterations, stop - first)
                take_steps(in_epochs, 1)
            if not epochs:
                take_steps(in_iterations, iterations)


def needs_metrics(scheduler: Any) -> bool:
    """Whether a scheduler, or a class of them, depends on validations, as mmengine asks it."""
    return getattr(scheduler, 'need_val_args', False)


def take_steps(schedulers: Sequence[Any], count: int) -> None:
    """Step some schedulers so many times, in turn."""
    for _ in range(count if schedulers else 0):
        for scheduler in schedulers:
            scheduler.step()


def differ(own: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether two states of schedulers are of different schedules."""
    pairs = [(own[key], known.get(key, own[key])) for key in own.keys() - MOVING]
    return not all(
        torch.equal(*pair)
        if all(isinstance(value, torch.Tensor) for value in pair)
        else pair[0] == pair[1]
        for pair in pairs
    )
