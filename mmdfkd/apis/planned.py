# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the schedules of a run will do: its own ones, stepped without training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop

from mmdfkd.datasets import LatentDataset
from mmdfkd.engine.runner.schedules import needs_metrics, take_steps
from mmdfkd.registry import LOOPS, RUNNERS, class_of, describes
from mmdfkd.utils.errors import shorten

from .untrained import build_untrained

#: (done, value) pairs: so many epochs or iterations are done when the value is used first. The last
#: pair is the end of the run with the value used last.
Course = list[tuple[float, float]]


class Plan(NamedTuple):
    """The values that the optimisers of a run will use.

    Attributes:
        courses: By parameter, ``lr`` first, then by role. Where groups of parameters differ within
            a role, each course is called by the tensors it is of.
        unit: What is counted, ``epoch`` or ``iteration``.
        unknown: Types of schedulers by role that follow validations; they are left out.
        varies: Whether a selection changes the length of epochs in which iterations are counted.
    """

    courses: dict[str, dict[str, Course]]
    unit: str
    unknown: dict[str, str]
    varies: bool


def plan_schedules(cfg: Config) -> Plan:
    """Step the schedulers of a config as its run would.

    No weights are needed, and images only where a schedule counts the iterations of an epoch: to
    know how many there are.

    Raises:
        UsageError: What a run would say of its optimisers and schedules.
    """
    model = build_untrained(cfg)
    counts = _counts_images(cfg)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runner = _build_runner(cfg, model, folder, counts)
        # As in its `train`.
        loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        schedulers = runner.build_param_scheduler(runner.param_schedulers or {})
    in_epochs = not isinstance(loop, IterBasedTrainLoop)
    length = len(loop.dataloader) if counts and in_epochs else 1
    total = loop.max_epochs * length if in_epochs else loop.max_iters
    names = {parameter: name for name, parameter in model.named_parameters()}
    plan = Plan({'lr': {}}, 'epoch' if in_epochs else 'iteration', {}, False)
    for role, wrapper in runner.optim_wrapper.items():
        known = [each for each in schedulers[role] if not needs_metrics(each)]
        others = [type(each).__name__ for each in schedulers[role] if needs_metrics(each)]
        if others:
            plan.unknown[role] = ' and '.join(others)
        groups = wrapper.optimizer.param_groups
        tensors = [
            [names.get(parameter, 'others') for parameter in group['params']] for group in groups
        ]
        followed = _follow(groups, known, total, length if in_epochs else 0)
        for key, courses in followed.items():
            plan.courses.setdefault(key, {}).update(_named(role, tensors, courses))
    return plan._replace(varies=counts and in_epochs and model.selector is not None)


def _build_runner(cfg: Config, model: Any, folder: str, counts: bool) -> Any:
    """The runner of a config, before it builds anything that trains."""
    cfg = copy.deepcopy(cfg)
    cfg.update(work_dir=folder, log_level='ERROR', load_from=None, resume=False, launcher='none')
    cfg.experiment_name = Path(folder).name  # mmengine would hand out what it has of that name
    cfg.visualizer = None  # it may tell a server
    for split in ('val', 'test'):
        cfg.update({f'{split}_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.train_dataloader.num_workers = 0
    parts = dict(model=model)
    if not counts:  # epochs of whatever length, of which nothing is read
        parts['train_dataloader'] = dict(
            batch_size=cfg.train_dataloader.batch_size,
            dataset=LatentDataset(10**9),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
    kind = class_of(RUNNERS, dict(type=cfg.get('runner_type', 'DistillRunner')))
    return kind.from_cfg(cfg, parts)


def _counts_images(cfg: Config) -> bool:
    """Whether it matters to some schedule how many iterations an epoch has."""
    loop = cfg.train_cfg
    in_epochs = loop.get('by_epoch', True) and not describes(LOOPS, loop, IterBasedTrainLoop)
    return any(
        each.get('convert_to_iter_based') or (in_epochs and not each.get('by_epoch', True))
        for each in _flat(cfg.get('param_scheduler'))
    )


def _flat(config: Any) -> Iterator[Mapping[str, Any]]:
    """The configs of single schedulers in one that may have roles and lists."""
    if isinstance(config, Mapping) and 'type' in config:
        yield config
    elif isinstance(config, (Mapping, list, tuple)):
        inner = config.values() if isinstance(config, Mapping) else config
        yield from chain.from_iterable(map(_flat, inner))


def _follow(groups: list[dict], schedulers: list, total: int, length: int) -> dict[str, list]:
    """Step schedulers as mmengine's hook does; the courses of groups by what is followed.

    Args:
        groups: Those of an optimiser.
        schedulers: Of the same role.
        total: How many steps the run has.
        length: After how many of them an epoch ends; 0 where the run has no epochs.
    """
    keys = ('lr', *(scheduler.param_name for scheduler in schedulers))
    found: dict[str, list[Course]] = {key: [[] for _ in groups] for key in keys}
    in_iterations = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    in_epochs = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Detected call of `scheduler')
        for step in range(total):
            for key, courses in found.items():
                for group, course in zip(groups, courses, strict=True):
                    if not course or course[-1][1] != group[key]:
                        course.append((step / (length or 1), group[key]))
            take_steps(in_iterations, 1)
            if length and (step + 1) % length == 0:
                take_steps(in_epochs, 1)
    for course in chain.from_iterable(found.values()):
        course.append((total / (length or 1), course[-1][1]))
    return found


def _named(role: str, tensors: list[list[str]], courses: list[Course]) -> dict[str, Course]:
    """The different ones of the courses of groups, called by their tensors where they are several.

    Args:
        role: Whose they are.
        tensors: Names of those of each group.
        courses: Of each group.
    """
    owners: dict[tuple, list[str]] = {}
    for own, course in zip(tensors, courses, strict=True):
        owners.setdefault(tuple(course), []).extend(name.removeprefix(f'{role}.') for name in own)
    if len(owners) == 1:
        return {role: courses[0]}
    return {f'{role}: {shorten(own, 1)}': list(course) for course, own in owners.items()}
