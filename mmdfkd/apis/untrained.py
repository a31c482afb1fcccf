# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A method before any training, for who asks about its networks and not about their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdfkd.models.algorithms import BaseDistiller
from mmdfkd.models.classifiers import Classifier, build_teacher, resolve_checkpoint
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


def build_untrained(cfg: Config) -> BaseDistiller:
    """Build the method of a config; a teacher whose file is not here has random weights.

    Raises:
        UsageError: That file alone would say what the teacher is, or the networks do not fit.
    """
    init_default_scope(cfg.get('default_scope', 'mmdfkd'))
    parts = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        parts.setdefault('data_preprocessor', cfg.data_preprocessor)
    if parts.get('teacher'):
        parts['teacher'] = _teacher(parts['teacher'])
    return MODELS.build(parts)


def _teacher(config: Mapping[str, Any]) -> Classifier:
    network = {key: value for key, value in config.items() if key != 'checkpoint'}
    if network and config.get('checkpoint'):
        try:
            resolve_checkpoint(config['checkpoint'])
        except UsageError:
            return MODELS.build({'type': 'Classifier', **network})
    return build_teacher(dict(config))
