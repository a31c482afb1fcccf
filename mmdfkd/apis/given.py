# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a caller gives, plain modules and arrays, as networks and datasets of ours."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdfkd.datasets import ImagePool, PackedDataset
from mmdfkd.models.algorithms.base import keep_weights
from mmdfkd.models.classifiers import Classifier, ForeignClassifier
from mmdfkd.utils import UsageError

Images = np.ndarray | Tensor | str | os.PathLike | PackedDataset


def as_dataset(argument: str, given: Images | tuple[Any, Any]) -> PackedDataset:
    """A dataset of what the caller calls images.

    Args:
        argument: Its name there.
        given: uint8 ``(N, H, W, C)``, a pair of such images and ``N`` class numbers, the folder of
            a pool, or a dataset, which is taken as it is.

    Raises:
        UsageError: It is none of these.
    """
    if isinstance(given, PackedDataset):
        return given
    if isinstance(given, (str, os.PathLike)):
        return ImagePool(given)
    images, labels = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    images, labels = (x.cpu().numpy() if isinstance(x, Tensor) else x for x in (images, labels))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        kind = type(images).__name__
        found = f'{images.dtype} {images.shape}' if isinstance(images, np.ndarray) else kind
        raise UsageError(
            f'{argument}: found {found}, expected pixel values from 0 to 255, uint8 of shape '
            '(N, H, W, C), or the folder of a pool, or one of mmdfkd.datasets. Convert a float '
            'tensor of images in [0, 1]: (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).'
        )
    return PackedDataset(np.ascontiguousarray(images), labels, dict(name=argument))


def as_teacher(
    network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, shape: Any
) -> Classifier:
    """A copy of the teacher as a classifier.

    A network whose logits come out of no linear layer is a black box: its features are its logits.

    Args:
        network: Maps normalised images ``(B, C, H, W)`` to logits ``(B, K)``.
        mean: Per channel, in units of 0 to 255.
        std: Likewise.
        shape: ``(C, H, W)``.

    Raises:
        UsageError: It is no network, cannot see such images, returns no logits, or the statistics
            do not fit.
    """
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        raise UsageError(
            f'teacher: found {type(network).__name__}, expected a torch module in Python. Build '
            'it, and load the weights into it: network.load_state_dict(...) takes what torch.load '
            'reads from a state dict, or the state_dict() of a TorchScript program.'
        )
    if isinstance(network, Classifier):
        if mean is not None or std is not None:
            raise UsageError(
                f'mean and std: {network.name} states its own, {network.mean} and {network.std}. '
                'Leave them out.'
            )
        return copy.deepcopy(network).cpu()
    images = dict(input_shape=shape, **_statistics(mean, std, shape[0]))
    network = _bare(network).eval()
    classes = _count_classes(network, shape)
    try:
        return ForeignClassifier(copy.deepcopy(network), **images)
    except UsageError as error:
        print_log(f'teacher: {error} It is taken for a black box.')
    name = type(network).__name__
    return ForeignClassifier(_BlackBox(network, _identity(classes)), name=name, **images)


def as_student(network: nn.Module, teacher: Classifier) -> Classifier:
    """A copy of the student as a classifier of the teacher's images.

    Raises:
        UsageError: It is no network, or cannot see them, or its last layer is not linear.
    """
    if not isinstance(network, nn.Module):
        raise UsageError(
            f'student: found {network!r}, expected a torch module or a config such as '
            "dict(backbone=dict(type='CifarResNet', depth=8))."
        )
    if isinstance(network, Classifier):
        student = copy.deepcopy(network).cpu()
        keep_weights(student)
        return student
    network = _bare(network)
    images: dict[str, Any] = dict(
        input_shape=teacher.input_shape, mean=teacher.mean, std=teacher.std
    )
    try:
        return ForeignClassifier(network, **images)
    except UsageError as error:
        raise UsageError(f'student: {error}') from error


def _bare(network: nn.Module) -> nn.Module:
    """A copy on the CPU in single precision, without what it is wrapped in."""
    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif isinstance(network, torch._dynamo.OptimizedModule):
            network = network._orig_mod
        else:
            return copy.deepcopy(network).cpu().float()


class _BlackBox(nn.Sequential):
    """A network, which may return an object with logits, and a linear layer behind those."""

    def forward(self, images: Tensor) -> Tensor:
        network, layer = self
        output = network(images)
        return layer(getattr(output, 'logits', output))


def _statistics(mean: Any, std: Any, channels: int) -> dict[str, list[float]]:
    """Mean and standard deviation as lists, or what is wrong with them."""
    if mean is None or std is None:
        raise UsageError(
            'mean and std: give those that the images of the teacher were normalised with, in '
            'units of 0 to 255. A network that sees images in [0, 1] has mean 0 and std 255.'
        )
    try:
        mean, std = (
            torch.as_tensor(x, dtype=torch.float64).flatten().tolist() for x in (mean, std)
        )
    except (TypeError, ValueError):
        raise UsageError(
            f'mean={mean!r} and std={std!r}: give numbers, one for each channel, in units of 0 to '
            '255.'
        ) from None
    if len(mean) != channels or len(std) != channels:
        raise UsageError(
            f'mean has {len(mean)} and std {len(std)} numbers, but the images have {channels} '
            'channels. Give one number each; images are (N, H, W, C): x.permute(0, 2, 3, 1) '
            'converts (N, C, H, W).'
        )
    if min(std) <= 0 or max(std) < 1 or (max(std) == 1 and max(map(abs, mean)) > 0):
        raise UsageError(
            f'mean={mean} and std={std} must be in units of 0 to 255, std above 0. Multiply those '
            'of images in [0, 1] by 255.'
        )
    return dict(mean=mean, std=std)


@torch.no_grad()
def _count_classes(network: nn.Module, shape: Sequence[int]) -> int:
    """How many logits the teacher returns for an image."""
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    try:
        output = network(images)
    except Exception as error:  # other people's code fails in its own ways
        raise UsageError(
            f'teacher: {type(network).__name__} cannot see images of {"x".join(map(str, shape))} '
            f'(C, H, W): {type(error).__name__}: {error} Give images like those it was trained '
            'on, or say input_shape.'
        ) from error
    logits = getattr(output, 'logits', output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 4:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f'teacher: {type(network).__name__} returns {found} for 4 images, expected logits '
            '(4, classes). Wrap it in a module that returns them.'
        )
    for probabilities in (logits, logits.exp()):
        sums = probabilities.sum(1)
        if (probabilities >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise UsageError(
                f'teacher: {type(network).__name__} returns probabilities or their logarithms, '
                'expected logits. Leave out its last softmax.'
            )
    return logits.shape[1]


def _identity(size: int) -> nn.Linear:
    """A linear layer that changes nothing."""
    with torch.device('meta'):  # draws no random weights
        layer = nn.Linear(size, size)
    layer.weight, layer.bias = nn.Parameter(torch.eye(size)), nn.Parameter(torch.zeros(size))
    return layer
