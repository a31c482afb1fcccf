# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Registries of mmdfkd: children of mmengine's, all under the scope ``mmdfkd``.

``default_scope = 'mmdfkd'`` in a config is enough to use every class by its bare name; other
libraries reach ours as ``mmdfkd.KD3`` and we reach theirs as ``mmpretrain.ResNet_CIFAR``. Importing
this module also tells mmengine of the package, for ``_base_ = 'mmdfkd::kd3/...'``.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

MODULE2PACKAGE.setdefault('mmdfkd', 'mmdfkd')
# mmcv says so whenever mmpretrain is imported, of an operator that no classifier here has.
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')


def _child(name: str, parent: str, *locations: str) -> Registry:
    return Registry(
        name,
        parent=getattr(mmengine_registry, parent),
        scope='mmdfkd',
        locations=list(locations),
    )


# Engine
RUNNERS = _child('runner', 'RUNNERS', 'mmdfkd.engine')
LOOPS = _child('loop', 'LOOPS', 'mmdfkd.engine')
HOOKS = _child('hook', 'HOOKS', 'mmdfkd.engine')
LOG_PROCESSORS = _child('log processor', 'LOG_PROCESSORS', 'mmdfkd.engine')
OPTIMIZERS = _child('optimizer', 'OPTIMIZERS', 'mmdfkd.engine')
OPTIM_WRAPPERS = _child('optim wrapper', 'OPTIM_WRAPPERS', 'mmdfkd.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', 'mmdfkd.engine'
)
PARAM_SCHEDULERS = _child('parameter scheduler', 'PARAM_SCHEDULERS', 'mmdfkd.engine')

# Data
DATASETS = _child('dataset', 'DATASETS', 'mmdfkd.datasets')
DATA_SAMPLERS = _child('data sampler', 'DATA_SAMPLERS', 'mmdfkd.datasets')
TRANSFORMS = _child('transform', 'TRANSFORMS', 'mmdfkd.datasets')
FUNCTIONS = _child('function', 'FUNCTIONS', 'mmdfkd.datasets')

# Networks, losses, algorithms; selectors are task utilities
MODELS = _child('model', 'MODELS', 'mmdfkd.models')
MODEL_WRAPPERS = _child('model_wrapper', 'MODEL_WRAPPERS', 'mmdfkd.engine')
TASK_UTILS = _child('task util', 'TASK_UTILS', 'mmdfkd.models')
# None of ours; without it mmengine warns of every mmpretrain backbone that it cannot ask.
WEIGHT_INITIALIZERS = _child('weight initializer', 'WEIGHT_INITIALIZERS', 'mmdfkd.models')

# Evaluation and visualisation
METRICS = _child('metric', 'METRICS', 'mmdfkd.evaluation')
EVALUATORS = _child('evaluator', 'EVALUATOR', 'mmdfkd.evaluation')
VISUALIZERS = _child('visualizer', 'VISUALIZERS', 'mmdfkd.visualization')
VISBACKENDS = _child('vis_backend', 'VISBACKENDS', 'mmdfkd.visualization')


def class_of(registry: Registry, config: Mapping[str, Any]) -> Any:
    """What the ``type`` of a config names: bare, with its scope, or the class itself."""
    kind = config.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind


def describes(registry: Registry, config: Any, *kinds: type) -> bool:
    """Whether a config is that of a class, or of one that derives from it.

    Args:
        registry: Where its ``type`` is looked for.
        config: Anything; what is no config describes nothing.
        *kinds: The classes.
    """
    if not isinstance(config, Mapping):
        return False
    kind = class_of(registry, config)
    return isinstance(kind, type) and issubclass(kind, kinds)
