# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Teachers and students: image classifiers, their files, and those of other libraries."""

from .checkpoint import (
    keep_weights,
    load_classifier,
    network_fingerprint,
    read_checkpoint,
    resolve_checkpoint,
    save_classifier,
)
from .classifier import Classifier, Features, check_sight, map_shapes, pool
from .cls_head import ClsHead
from .folding import BatchNormFolding
from .foreign import ForeignClassifier
from .roles import build_student, build_teacher
from .simkd import map_shape, share_classifier

__all__ = [
    'BatchNormFolding',
    'Classifier',
    'ClsHead',
    'Features',
    'ForeignClassifier',
    'build_student',
    'build_teacher',
    'check_sight',
    'keep_weights',
    'load_classifier',
    'map_shape',
    'map_shapes',
    'network_fingerprint',
    'pool',
    'read_checkpoint',
    'resolve_checkpoint',
    'save_classifier',
    'share_classifier',
]
