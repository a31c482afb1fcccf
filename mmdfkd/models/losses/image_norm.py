# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How far pixels are from the mean colour."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice


def image_norm(images: Tensor, form: Literal['batch', 'image'] = 'batch') -> Tensor:
    r"""L2 norm of images.

    .. math::
        R_{batch} = \|x\|_2, \qquad R_{image} = \frac1N \sum_n \|x_n\|_2

    The former is about sqrt(N) times the latter, so their weights differ.

    Source: Yin et al., "Dreaming to Distill", arXiv 1912.08795, R_l2; its code for CIFAR has the
    former, that for ImageNet the latter.

    Args:
        images: Normalised, ``(N, C, H, W)``.
        form: Which of the two.

    Returns:
        A scalar >= 0; 0, with zero gradient, where all pixels have the mean colour.
    """
    if form == 'batch':
        return torch.linalg.vector_norm(images)
    return torch.linalg.vector_norm(images.flatten(1), dim=1).mean()


@MODELS.register_module()
class ImageNormLoss(nn.Module):
    """Module form of :func:`image_norm`.

    Args:
        form: ``'batch'`` or ``'image'``.
        loss_weight: Factor.
    """

    def __init__(self, form: Literal['batch', 'image'] = 'batch', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_choice('ImageNormLoss: form', form, ('batch', 'image'))
        self.form = form
        self.loss_weight = loss_weight

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`image_norm`."""
        return self.loss_weight * image_norm(images, self.form)
