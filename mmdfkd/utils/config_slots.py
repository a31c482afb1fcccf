# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The map of a config: what is built where, from which registry, with what added."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from mmengine.runner import Runner

#: Where something is in a config, for instance ``('custom_hooks', 0, 'type')``.
KeyPath = tuple[str | int, ...]

#: Where a type may be registered if its place does not tell.
ANYWHERE = (
    *('MODELS', 'TRANSFORMS', 'TASK_UTILS', 'DATASETS', 'METRICS', 'FUNCTIONS', 'DATA_SAMPLERS'),
    *('HOOKS', 'LOOPS', 'OPTIMIZERS', 'OPTIM_WRAPPERS', 'PARAM_SCHEDULERS', 'VISUALIZERS'),
    *('VISBACKENDS', 'LOG_PROCESSORS', 'EVALUATOR', 'WEIGHT_INITIALIZERS'),
)

#: ``Slot.default`` of a place whose config must name its type.
REQUIRED = 'required'


class Slot(NamedTuple):
    """A place in a config where something is built.

    Attributes:
        pattern: Dotted path, ``*`` stands for any text within one part.
        registries: Names of the registries that may know the type.
        default: Type where the config names none, or ``REQUIRED``.
        takes: Keys that the builder takes out before the class sees them.
        adds: Arguments that the builder adds.
    """

    pattern: str
    registries: Sequence[str]
    default: str | None = None
    takes: Sequence[str] = ()
    adds: Sequence[str] = ()


_OPTIM_WRAPPER: dict[str, Any] = dict(
    registries=['OPTIM_WRAPPERS'], takes=['constructor', 'paramwise_cfg']
)
_OPTIMIZER: dict[str, Any] = dict(registries=['OPTIMIZERS'], default=REQUIRED, adds=['params'])
_SCHEDULER: dict[str, Any] = dict(
    registries=['PARAM_SCHEDULERS'],
    takes=['convert_to_iter_based', 'epoch_length'],
    adds=['optimizer'],
)
_HOOK: dict[str, Any] = dict(registries=['HOOKS'], default=REQUIRED, takes=['priority'])
_LOOP: dict[str, Any] = dict(registries=['LOOPS'], adds=['runner', 'dataloader', 'evaluator'])
_SAMPLER: dict[str, Any] = dict(
    registries=['DATA_SAMPLERS'],
    default=REQUIRED,
    adds=['dataset', 'seed', 'sampler', 'batch_size'],
)

#: What mmengine's runner builds.
SLOTS = (
    Slot('model', ['MODELS'], REQUIRED),
    Slot('model.feature_losses.*', ['MODELS'], REQUIRED),
    Slot('data_preprocessor', ['MODELS'], adds=['mean', 'std', 'input_shape']),
    Slot('model_wrapper_cfg', ['MODEL_WRAPPERS'], adds=['module']),
    Slot('*_dataloader.dataset', ['DATASETS'], REQUIRED),
    Slot('*_dataloader.sampler', **_SAMPLER),
    Slot('*_dataloader.batch_sampler', **_SAMPLER),
    Slot('*_dataloader.collate_fn', ['FUNCTIONS'], REQUIRED),
    Slot('*_dataloader.worker_init_fn', ['FUNCTIONS'], REQUIRED),
    Slot('optim_wrapper.optimizer', **_OPTIMIZER),
    Slot('optim_wrapper.*.optimizer', **_OPTIMIZER),
    Slot('optim_wrapper', **_OPTIM_WRAPPER),
    Slot('optim_wrapper.*', **_OPTIM_WRAPPER),
    Slot('param_scheduler', **_SCHEDULER),
    Slot('param_scheduler.*', **_SCHEDULER),
    Slot('param_scheduler.*.*', **_SCHEDULER),
    Slot('train_cfg', takes=['by_epoch'], **_LOOP),
    Slot('val_cfg', default='ValLoop', **_LOOP),
    Slot('test_cfg', default='TestLoop', **_LOOP),
    Slot('*_evaluator', ['METRICS', 'EVALUATOR']),
    Slot('*_evaluator.*', ['METRICS']),
    Slot('default_hooks.*', **_HOOK),
    Slot('custom_hooks.*', **_HOOK),
    Slot('log_processor', ['LOG_PROCESSORS'], 'LogProcessor'),
    Slot('visualizer', ['VISUALIZERS'], REQUIRED, adds=['name']),
    Slot('visualizer.vis_backends.*', ['VISBACKENDS'], REQUIRED, adds=['save_dir']),
)

#: Their patterns.
PATTERNS = {slot.pattern for slot in SLOTS}

#: Registries whose classes take whole batches in mmdfkd, so that those of other libraries do not
#: fit.
WHOLE_BATCHES = ('transform', 'metric')

#: Further inside, an argument's name tells.
INNER_SLOTS = {
    slot.pattern: slot
    for slot in (
        Slot('augment', ['TRANSFORMS', *ANYWHERE]),
        Slot('pipeline', ['TRANSFORMS', *ANYWHERE]),
        Slot('transforms', ['TRANSFORMS', *ANYWHERE]),
        Slot('dataset', ['DATASETS', *ANYWHERE]),
        Slot('sampler', ['DATA_SAMPLERS', *ANYWHERE], adds=_SAMPLER['adds']),
        Slot('selector', ['TASK_UTILS', *ANYWHERE]),
        Slot('metrics', ['METRICS', *ANYWHERE]),
        Slot('teacher', ANYWHERE, takes=['checkpoint']),
    )
}

#: Top-level keys that are read by the runner or the command-line tools.
RUNNER_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    *('custom_imports', 'runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'),
    *('compile', 'tta_model'),
} - {'self', 'cfg'}

#: Those that are dicts and are not built.
DICTS = ('custom_imports', 'default_hooks', 'env_cfg', 'randomness', 'auto_scale_lr')

#: Keys of ``env_cfg``, which mmengine and our runner read.
ENVIRONMENT_KEYS = (
    *('cudnn_benchmark', 'keep_memory', 'tf32'),
    *('mp_cfg', 'dist_cfg', 'resource_limit'),
)

#: Keys of ``auto_scale_lr``.
SCALING_KEYS = ('base_batch_size', 'enable')

#: Top-level keys that make sense only together.
PHASES = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}


def slot_of(path: KeyPath) -> Slot:
    """Return the slot at ``path``; an anonymous one where nothing is known about the place."""
    parts = [str(part) for part in path]
    for slot in SLOTS:
        pattern = slot.pattern.split('.')
        if len(pattern) == len(parts) and all(map(fnmatchcase, parts, pattern)):
            return slot
    return INNER_SLOTS.get(argument_of(path), Slot('', ANYWHERE))


def argument_of(path: KeyPath) -> str:
    """Return the last part of a path that is a name, not an index into a list."""
    return next(part for part in reversed(path) if isinstance(part, str))
