# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Weights of spectral norm one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class SpectralNorm(nn.Module):
    r"""A weight divided by its largest singular value.

    .. math::
        v \leftarrow \frac{W^\top u}{\|W^\top u\|}, \qquad
        u \leftarrow \frac{W v}{\|W v\|}, \qquad
        \sigma = u^\top W v

    One such power iteration happens in each pass in train mode, none in eval mode; the gradient
    flows through W alone. Source: Miyato et al., arXiv 1802.05957, Algorithm 1. (PyTorch's own
    parametrisation takes its iteration in the other order, and 15 of them at the start.)

    Args:
        weight: W, any shape ``(rows, ...)``; it counts as a matrix of that many rows.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        for name, size in zip('uv', weight.flatten(1).shape, strict=True):
            self.register_buffer(name, F.normalize(torch.randn(size), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight to compute with, of the shape of ``weight``."""
        matrix = weight.flatten(1)
        # Sums instead of matrix products, which autocast would round to three digits.
        if self.training:
            with torch.no_grad():
                self.v = F.normalize((matrix * self.u[:, None]).sum(0), dim=0)
                self.u = F.normalize((matrix * self.v).sum(1), dim=0)
        return weight / (self.u * (matrix * self.v).sum(1)).sum()


def normalise_spectrum(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Give a layer's ``weight`` the spectral norm one from now on; returns the layer."""
    return register_parametrization(layer, 'weight', SpectralNorm(layer.weight.detach()))
