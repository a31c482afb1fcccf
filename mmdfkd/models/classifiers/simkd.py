# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""SimKD's student: its own backbone, an adapter, and the teacher's classifier."""

from __future__ import annotations

from torch import nn

from mmdfkd.registry import MODELS, class_of
from mmdfkd.utils import UsageError
from mmdfkd.utils.modes import dry_run

from .classifier import Classifier, check_inputs, check_parts, check_sight


def share_classifier(
    student: dict, teacher: Classifier, adapter: dict, own: bool = False
) -> Classifier:
    """Build the deployable student ``g_T(pool(A(phi_S(x))))``.

    Source: `Knowledge Distillation with the Reused Teacher Classifier
    <https://arxiv.org/abs/2203.14001>`_ (CVPR 2022), also used by KD³ and HiDFD.

    Args:
        student: ``Classifier`` config; its head and its neck, if any, are not used: the adapter
            takes the backbone's last map.
        teacher: The teacher, whose head module becomes the student's, frozen.
        adapter: Config of A without channels and sizes, which are read off both networks.
        own: Give the student a fresh head of the same form instead of the teacher's.

    Raises:
        UsageError: The student is no config, or one that speaks of other classes or images than the
            teacher, or of parts that it cannot have, or last maps have two sizes and are no
            squares.
    """
    if not isinstance(student, dict):
        raise UsageError(
            'model.student is a network that is built already, but this method builds its student '
            "around the teacher's classifier. Give a config, dict(backbone=dict(type=...)), or "
            'choose a method that takes any network.'
        )
    kind = class_of(MODELS, {'type': 'Classifier', **student})
    if kind is not Classifier:
        raise UsageError(
            f'model.student is a {student["type"]}, but this method builds its student around the '
            "teacher's classifier, from a backbone. Give dict(backbone=dict(type=...)), or choose "
            'a method that takes any network.'
        )
    check_parts(student, 'model.student')
    classes = (student.get('head') or {}).get('num_classes', teacher.num_classes)
    if classes != teacher.num_classes:
        raise UsageError(
            f'model.student.head.num_classes is {classes}, the teacher has {teacher.num_classes} '
            "classes. The student takes over the teacher's classifier: make them equal."
        )
    if student.get('init_cfg'):
        raise UsageError(
            "model.student.init_cfg has no place here: the head is the teacher's and the adapter "
            'is the neck. Remove it; initialise in model.student.backbone.'
        )
    check_inputs(student, teacher)
    backbone = MODELS.build(student['backbone'])
    check_sight(backbone, teacher.input_shape)
    source = map_shape(backbone, teacher.input_shape)
    target = map_shape(teacher, teacher.input_shape)
    neck = dict(type='SimKDAdapter', in_channels=source[0], out_channels=target[0])
    if source[1] == source[2] and target[1] == target[2]:
        neck |= dict(in_size=source[1], out_size=target[1])
    elif source[1:] != target[1:]:
        raise UsageError(
            f'The last map of the student is {source[1]}x{source[2]}, that of the teacher '
            f'{target[1]}x{target[2]}. The adapter pools square maps only: choose a '
            "model.student.backbone whose last map has the size of the teacher's."
        )
    network = Classifier(
        backbone=student['backbone'],
        neck={**neck, **adapter},
        head=teacher.head_config,
        input_shape=teacher.input_shape,
        mean=teacher.mean,
        std=teacher.std,
        name=student.get('name'),
    )
    if not own:
        if network.head.state_dict().keys() != teacher.head.state_dict().keys():
            raise UsageError(
                f'The classifier of the teacher {teacher.name} has the tensors '
                f'{", ".join(teacher.head.state_dict())}, and nobody could rebuild the student '
                'that shares it. Give the teacher a plain linear layer: nn.utils.parametrize.'
                'remove_parametrizations takes a norm of weights away.'
            )
        network.head = teacher.head
    return network


def map_shape(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of the last map of a backbone, or of the map a classifier pools."""
    with dry_run(network, input_shape) as image:
        if isinstance(network, Classifier):
            feature_map = network.extract(image).map
        else:
            feature_map = network(image)[-1]
    channels, height, width = feature_map.shape[1:]
    return channels, height, width
