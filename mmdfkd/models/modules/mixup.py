# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Mixup: virtual samples between the images of a batch.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


def mix(samples: Tensor, weights: Tensor, partners: Tensor) -> Tensor:
    r"""Weighted sums of samples of one batch.

    .. math:: \tilde x_i = \sum_k \lambda_{ki} \, x_{\pi_k(i)}

    Images, one-hot labels and probabilities are mixed with the same weights and partners. Mix
    normalised images: weights sum to 1, so a normalisation before or after gives the same.

    Args:
        samples: ``(B, ...)``, floating point; bytes would be truncated.
        weights: lambda, ``(K, B)``, or ``(K, 1)`` for one weight per batch.
        partners: pi, int64 ``(K, B)``; the first row is 0, ..., B - 1.

    Returns:
        ``(B, ...)`` of the samples' dtype; the samples are left as they are.
    """
    assert samples.is_floating_point(), f'mix takes floating point, found {samples.dtype}'
    shape = (*weights.shape, *[1] * (samples.ndim - 1))
    weights = weights.to(samples.dtype).reshape(shape)
    mixed = weights[0] * samples
    for weight, partner in zip(weights[1:], partners[1:], strict=True):
        mixed.addcmul_(weight, samples[partner])
    return mixed


@MODELS.register_module()
class Mixup(nn.Module):
    """Random :func:`mix` of a batch with permutations of itself.

    Weights come from Beta(alpha, alpha), for more than two samples from the symmetric Dirichlet
    distribution. alpha = 1 is uniform; below, one sample dominates. A permutation may leave samples
    where they are, in a batch of one always: those stay unmixed.

    Args:
        alpha: Parameter of the distribution, > 0.
        num_mix: How many samples make a virtual one, K >= 2.
        per_sample: Draw weights for every sample instead of once per batch (the paper's code).

    Raises:
        UsageError: If ``alpha`` or ``num_mix`` is out of range.
    """

    def __init__(self, alpha: float = 1.0, num_mix: int = 2, per_sample: bool = False) -> None:
        super().__init__()
        if alpha <= 0:
            raise UsageError(f'Mixup: alpha={alpha}, expected a number > 0; 1.0 is uniform.')
        if num_mix < 2:
            raise UsageError(f'Mixup: num_mix={num_mix}, expected 2 or more.')
        self.alpha = alpha
        self.num_mix = num_mix
        self.per_sample = per_sample

    def draw(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Draw weights and partners for a batch ``(B, ...)``, on its device.

        Returns:
            Weights, float32 ``(K, B)`` or ``(K, 1)``, each column summing to 1; partners, int64
            ``(K, B)``.
        """
        batch, device = len(samples), samples.device
        shape = (batch if self.per_sample else 1, self.num_mix)
        alpha = torch.full(shape, self.alpha, device=device)
        # Beta(a, a) is the first coordinate of Dirichlet(a, a).
        weights = Dirichlet(alpha, validate_args=False).sample().T
        others = [torch.randperm(batch, device=device) for _ in range(self.num_mix - 1)]
        return weights, torch.stack([torch.arange(batch, device=device), *others])

    def forward(self, *samples: Tensor) -> tuple[Tensor, ...]:
        """Mix tensors ``(B, ...)`` that belong together, for instance images and one-hot labels."""
        weights, partners = self.draw(samples[0])
        return tuple(mix(tensor, weights, partners) for tensor in samples)

    def extra_repr(self) -> str:
        """Return the arguments for printing."""
        return f'alpha={self.alpha}, num_mix={self.num_mix}, per_sample={self.per_sample}'
