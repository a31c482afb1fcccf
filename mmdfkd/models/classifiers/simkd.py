# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""SimKD's student: its own backbone, an adapter, and the teacher's classifier."""

from __future__ import annotations

import torch
from torch import nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .classifier import Classifier


def share_classifier(
    student: dict, teacher: Classifier, adapter: dict, own: bool = False
) -> Classifier:
    """Build the deployable student ``g_T(pool(A(phi_S(x))))``.

    Source: `Knowledge Distillation with the Reused Teacher Classifier
    <https://arxiv.org/abs/2203.14001>`_ (CVPR 2022), also used by KD³ and HiDFD.

    Args:
        student: ``Classifier`` config; its head, if any, is not used.
        teacher: The teacher, whose head module becomes the student's, frozen.
        adapter: Config of A without channels and sizes, which are read off both networks.
        own: Give the student a fresh head of the same form instead of the teacher's.

    Raises:
        UsageError: The student's config speaks of another number of classes.
    """
    classes = (student.get('head') or {}).get('num_classes', teacher.num_classes)
    if classes != teacher.num_classes:
        raise UsageError(
            f'model.student.head.num_classes is {classes}, the teacher has {teacher.num_classes} '
            'classes. The student takes over the teacher\'s classifier: make them equal.'
        )
    backbone = MODELS.build(student['backbone'])
    source = map_shape(backbone, teacher.input_shape)
    target = map_shape(teacher.backbone, teacher.input_shape)
    network = Classifier(
        backbone=student['backbone'],
        neck={
            'type': 'SimKDAdapter',
            'in_channels': source[0],
            'out_channels': target[0],
            'in_size': source[1],
            'out_size': target[1],
            **adapter,
        },
        head=teacher.config['head'],
        input_shape=teacher.input_shape,
        mean=teacher.mean,
        std=teacher.std,
        name=student.get('name'),
    )
    if not own:
        network.head = teacher.head
    return network


@torch.no_grad()
def map_shape(backbone: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of the last map of a backbone for images of ``input_shape``."""
    training = backbone.training
    backbone.eval()
    shape = tuple(backbone(torch.zeros(1, *input_shape))[-1].shape[1:])
    backbone.train(training)
    return shape
