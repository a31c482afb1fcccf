# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Contrast of each image with all others made so far: what CMI's diversity comes from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.precision import at_least_float32


def info_nce(anchors: Tensor, keys: Tensor, temperature: float) -> Tensor:
    r"""InfoNCE of each anchor: its key against those of all the others.

    .. math:: L_i = -\log \frac{\exp(a_i \cdot k_i / \tau)}{\sum_j \exp(a_i \cdot k_j / \tau)}

    The positive is part of the denominator and no symmetric term is added. Nothing is gathered from
    other processes. Source: Fang et al., "Contrastive Model Inversion", IJCAI 2021, arXiv
    2105.08584, and its published code.

    Args:
        anchors: Unit vectors ``(M, D)``.
        keys: Unit vectors ``(M, D)``, in the order of the anchors; no gradient flows to them.
        temperature: tau > 0.

    Returns:
        ``(M,)``, each >= 0; ``log M`` where all vectors agree. Computed in float32 at least.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, keys = at_least_float32(anchors), at_least_float32(keys.detach())
        logits = (anchors / temperature) @ keys.T
        own = torch.arange(len(anchors), device=anchors.device)
        return F.cross_entropy(logits, own, reduction='none')


@MODELS.register_module()
class InstanceContrastLoss(nn.Module):
    """Contrast of a batch with itself and with rows of a bank, CMI's contrastive term.

    Mean over the batch plus mean over the bank's rows: the first is what images are moved by, and
    many rows do not dilute it; the second trains the projection head alone, since rows of the bank
    are constants.

    Args:
        temperature: tau > 0.
        loss_weight: Factor.

    Raises:
        UsageError: If the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1, loss_weight: float = 0.8) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(
                f'InstanceContrastLoss: temperature={temperature}, expected a number > 0; the '
                'published recipes have 0.1 and 0.2.'
            )
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, anchors: Tensor, keys: Tensor, batch: int) -> Tensor:
        """Weighted loss of unit vectors ``(M, D)``, the bank's behind the first ``batch``."""
        losses = info_nce(anchors, keys, self.temperature)
        loss = losses[:batch].mean()
        if len(losses) > batch:
            loss = loss + losses[batch:].mean()
        return self.loss_weight * loss
