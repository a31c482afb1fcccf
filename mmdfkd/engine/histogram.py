# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A histogram of classes, in a number and in words."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdfkd.utils.errors import shorten


def effective_classes(counts: Tensor) -> float:
    """Number of classes a histogram ``(K,)`` amounts to: the exponential of its entropy."""
    share = counts / counts.sum()
    return torch.special.entr(share).sum().exp().item()


_REMEDY = (
    'Raise the weight of the class balance (where the method has one), lower the learning rate of '
    'the generator, or raise the batch size.'
)


def describe_collapse(
    counts: Tensor, names: list[str], culprit: str = 'Generator', remedy: str = _REMEDY
) -> str:
    """Say in words what is wrong with a histogram ``(K,)`` of classes; empty where nothing is.

    A collapse is a class with more than half of the images (of more than two classes), or more
    than half of the classes without any.

    Args:
        counts: Images by class.
        names: Names of the classes.
        culprit: Who collapses.
        remedy: What to do.
    """
    if len(counts) <= 2:
        return ''
    share, top = (counts / counts.sum()).max(0)
    missing = [name for name, count in zip(names, counts.tolist(), strict=False) if count == 0]
    if share > 0.5:
        return (
            f'{culprit} collapse: {share:.0%} of the generated images are of class {names[top]} '
            f'to the teacher. {remedy}'
        )
    if len(missing) > len(counts) / 2:
        return (
            f'{culprit} collapse: {len(missing)} of {len(counts)} classes are never generated '
            f'({shorten(missing)}). {remedy}'
        )
    return ''
