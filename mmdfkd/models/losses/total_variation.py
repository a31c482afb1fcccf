# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How much neighbouring pixels differ."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import check_choice


def total_variation(images: Tensor, form: Literal['l2', 'l1'] = 'l2') -> Tensor:
    r"""Differences of neighbours along rows, columns and both diagonals.

    .. math::
        R_{l2} = \sum_{k=1}^4 \|d_k\|_2, \qquad R_{l1} = \sum_{k=1}^4 \mathrm{mean} |d_k|

    with d_k the differences of all pixels of the whole batch in direction k. So the l2 form grows
    with the square root of the batch and of the area, the l1 form with neither.

    Source: Yin et al., "Dreaming to Distill", arXiv 1912.08795, R_TV, and its code at
    github.com/NVlabs/DeepInversion.

    Args:
        images: ``(N, C, H, W)``.
        form: Which of the two.

    Returns:
        A scalar >= 0; 0, with zero gradient, for images of one colour each.
    """
    differences = (
        images[..., :, :-1] - images[..., :, 1:],
        images[..., :-1, :] - images[..., 1:, :],
        images[..., 1:, :-1] - images[..., :-1, 1:],
        images[..., :-1, :-1] - images[..., 1:, 1:],
    )
    if form == 'l2':
        terms = [torch.linalg.vector_norm(difference) for difference in differences]
    else:
        terms = [difference.abs().mean() for difference in differences]
    return torch.stack(terms).sum()


@MODELS.register_module()
class TotalVariationLoss(nn.Module):
    """Module form of :func:`total_variation`.

    Args:
        form: ``'l2'`` or ``'l1'``; their weights are far apart (2.5e-5 and 1e-3 in published
            recipes for 256 images of 32 pixels).
        loss_weight: Factor.
    """

    def __init__(self, form: Literal['l2', 'l1'] = 'l2', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_choice('TotalVariationLoss: form', form, ('l2', 'l1'))
        self.form = form
        self.loss_weight = loss_weight

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`total_variation`."""
        return self.loss_weight * total_variation(images, self.form)
