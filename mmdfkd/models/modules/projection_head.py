# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Projection to the unit sphere, for contrastive losses."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.precision import at_least_float32


@MODELS.register_module()
class ProjectionHead(BaseModule):
    r"""One linear layer followed by l2 normalisation, KD³'s Eqs. (13) and (14).

    .. math::
        z = \frac{W h + b}{\max(\lVert W h + b \rVert_2, \epsilon)}

    Source: Tang et al., ICCV 2023, arXiv 2307.11469. Clean and perturbed images share one head;
    teacher and student have one each. The official code has no eps and returns NaN for a zero
    vector; here it stays zero. With a hidden layer it is the head of CMI (Fang et al., IJCAI 2021,
    arXiv 2105.08584).

    Args:
        in_channels: Length C of the pooled feature vector.
        out_channels: Length of the embedding.
        eps: Smallest norm divided by.
        hidden_channels: Width of a linear layer with ReLU ahead of it; ``None`` is without.
        init_cfg: As in mmengine; PyTorch's default initialisation if None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 128,
        eps: float = 1e-6,
        hidden_channels: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.hidden: nn.Module = nn.Identity()
        if hidden_channels is not None:
            self.hidden = nn.Sequential(nn.Linear(in_channels, hidden_channels), nn.ReLU())
        self.linear = nn.Linear(hidden_channels or in_channels, out_channels)
        self.eps = eps

    def forward(self, vector: Tensor) -> Tensor:
        """Project vectors ``(B, C)`` to unit vectors ``(B, out_channels)``, at least float32."""
        projected = at_least_float32(self.linear(self.hidden(vector)))
        return F.normalize(projected, dim=1, eps=self.eps)
