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
        fresh: Whether a pass in eval mode does the iteration too, without keeping its result
            (BigGAN). Then sigma fits weights that have moved since, or were averaged.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, fresh: bool = False) -> None:
        super().__init__()
        self.fresh = fresh
        for name, size in zip('uv', weight.flatten(1).shape, strict=True):
            self.register_buffer(name, F.normalize(torch.randn(size), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight to compute with, of the shape of ``weight``."""
        matrix = weight.flatten(1)
        # Sums instead of matrix products, which autocast would round to three digits.
        u, v = self.u, self.v
        if self.training or self.fresh:
            with torch.no_grad():
                v = F.normalize((matrix * u[:, None]).sum(0), dim=0)
                u = F.normalize((matrix * v).sum(1), dim=0)
        if self.training:
            self.u.copy_(u)  # in place, as a CUDA graph would overwrite a result that is kept
            self.v.copy_(v)
        return weight / (u * (matrix * v).sum(1)).sum()


def normalise_spectrum(layer: nn.Linear | nn.Conv2d, fresh: bool = False) -> nn.Module:
    """Give a layer's ``weight`` the spectral norm one from now on; returns the layer."""
    return register_parametrization(layer, 'weight', SpectralNorm(layer.weight.detach(), fresh))
