# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Teacher and student, from what a config says of them."""

from __future__ import annotations

from typing import Any

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .checkpoint import keep_weights, load_classifier
from .classifier import Classifier, check_inputs, check_parts, check_sight


def build_teacher(config: dict | Classifier | None) -> Classifier:
    """Build a teacher from its config, load its checkpoint and freeze it.

    Frozen means: no parameter requires a gradient (gradients still flow *through* it to images),
    no ``init_cfg`` is applied any more, and the network is in eval mode.

    Raises:
        UsageError: There is no teacher or no checkpoint, or it does not fit.
    """
    network: Any = None
    if config is None:
        raise UsageError('model.teacher is None, and this method distils. Name a teacher.')
    if isinstance(config, dict):
        config = dict(config)
        checkpoint = config.pop('checkpoint', None)
        if checkpoint is None and not config.get('pretrained'):  # see ForeignClassifier
            raise UsageError(
                'model.teacher has no checkpoint, so there is nothing to distil. Add '
                "model.teacher.checkpoint='PATH' (or 'mmdfkd://lenet5_digits')."
            )
        if config:
            network = MODELS.build({'type': 'Classifier', **config})
        if checkpoint is not None:
            network = load_classifier(checkpoint, network)
    else:
        network = config
    keep_weights(network)  # also where a student shares the module
    return network.requires_grad_(False).eval()


def build_student(
    config: dict | Classifier,
    teacher: Classifier | None,
    method: str,
    key: str = 'model.student',
) -> Classifier:
    """Build a student; input shape and normalisation are the teacher's.

    Args:
        config: ``Classifier`` config, or a network, which is taken as it is.
        teacher: The teacher, if there is one.
        method: What builds it, for messages.
        key: Where the config is, for messages.

    Raises:
        UsageError: The config states others, or lacks a part, or is of a network that cannot see
            such images.
    """
    if not isinstance(config, dict):
        if teacher is not None:
            check_inputs(config.config, teacher, key)
        return config
    config = {'type': 'Classifier', **config}
    check_parts(config, key, method)
    if teacher is not None:
        check_inputs(config, teacher, key)
        for name in ('input_shape', 'mean', 'std'):
            config[name] = getattr(teacher, name)
    student = MODELS.build(config)
    if hasattr(student, 'backbone'):  # other networks have seen some when they were built
        check_sight(student, student.input_shape, key)
    return student
