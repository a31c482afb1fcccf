# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Test-time augmentation: what networks say of an image and of its mirror image, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from mmdfkd.datasets.transforms import BatchRandomFlip
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.registry import HOOKS
from mmdfkd.utils import UsageError

from ..prediction import LogitsCache, predict_logits


@HOOKS.register_module()
class TTAHook(Hook):
    """Test with the mean of the probabilities of each image and of its mirror image.

    All networks of a test are asked twice: the student, others that a method evaluates too, and
    the teacher, so that agreement compares like with like. Training is as without.

    Args:
        mirrored: Whether a mirror image shows the same class. ``None``: if the recipe mirrors its
            training images. Photographs do, digits do not.
    """

    priority = 'LOW'  # after the teacher has predicted

    def __init__(self, mirrored: bool | None = None) -> None:
        self.mirrored = mirrored

    def before_run(self, runner: Any) -> None:
        """Refuse to mirror what the recipe does not."""
        mirrored = self.mirrored
        if mirrored is None:
            augment = runner.model.data_preprocessor.augment
            mirrored = any(isinstance(each, BatchRandomFlip) and each.prob > 0 for each in augment)
        if not mirrored:
            raise UsageError(
                '--tta averages over an image and its mirror image, and this recipe does not '
                'mirror what it trains on (no BatchRandomFlip in data_preprocessor.augment): a '
                'mirrored 3 is no 3. Leave --tta out, or, where mirror images do show the same '
                'class, as photographs do, add --cfg-options default_hooks.tta.mirrored=True.'
            )

    def before_test(self, runner: Any) -> None:
        """From here on, the model answers for both images, and so does the teacher."""
        model, dataset = runner.model, runner.test_loop.dataloader.dataset
        model.test_step = averaged(model.test_step)
        if model.teacher_predictions is None:
            return
        teacher = model.teacher
        mirror = BatchPreprocessor(teacher.mean, teacher.std, [lambda images: images.flip(-1)])
        mirror = mirror.to(model.test_preprocessor.device)
        plain = LogitsCache().get(teacher, dataset, model.test_preprocessor)
        words = f'Teacher predicts {len(dataset):,} mirror images'
        logits = mean_of_views(
            plain, predict_logits(teacher, dataset, mirror, augment=True, description=words)
        )
        model.remember_teacher(logits.argmax(1))
        if dataset.labels is not None:
            hits = logits.argmax(1) == torch.as_tensor(dataset.labels)[: len(logits)]
            accuracy = 100 * hits.double().mean().item()
            runner.logger.info(f'Teacher {teacher.name}: {accuracy:.2f} % with mirror images.')

    def after_test(self, runner: Any) -> None:
        """The model answers for one image again."""
        vars(runner.model).pop('test_step', None)


def averaged(step: Callable[[dict], list[dict]]) -> Callable[[dict], list[dict]]:
    """A test step whose ``logits`` and ``*_logits`` ``(B, K)`` are those of :func:`mean_of_views`.

    Args:
        step: Makes a list of such dicts of a batch with ``inputs`` ``(B, C, H, W)``.
    """

    def both(data: dict) -> list[dict]:
        plain, mirrored = step(data), step({**data, 'inputs': data['inputs'].flip(-1)})
        for batch, other in zip(plain, mirrored, strict=True):
            for name in batch:
                if name == 'logits' or name.endswith('_logits'):
                    batch[name] = mean_of_views(batch[name], other[name])
        return plain

    return both


def mean_of_views(first: Tensor, second: Tensor) -> Tensor:
    r"""Logits whose softmax is the mean of two others'; which is which does not matter.

    .. math:: \log \frac{\mathrm{softmax}(a) + \mathrm{softmax}(b)}{2}

    Args:
        first: Logits ``a``, ``(B, K)``.
        second: Logits ``b``, ``(B, K)``.

    Returns:
        Logarithms of probabilities, ``(B, K)``, at most 0.
    """
    return torch.logaddexp(first.log_softmax(1), second.log_softmax(1)) - math.log(2)
