# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What a variational auto-encoder minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

_VIEWS = ('pixel', 'logit', 'feature')


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""KL divergence of diagonal Gaussians from the standard normal distribution.

    .. math:: L = \frac1B \sum_b -\frac12 \sum_j (1 + \ln\sigma_{bj}^2 - \mu_{bj}^2 - \sigma_{bj}^2)

    Source: Kingma and Welling, arXiv 1312.6114, appendix B.

    Args:
        mean: mu, ``(B, L)``.
        log_variance: The logarithm of sigma squared, ``(B, L)``.

    Returns:
        A scalar >= 0; 0 where all means are 0 and all variances 1.
    """
    mean, log_variance = at_least_float32(mean), at_least_float32(log_variance)
    return (mean.square() + torch.expm1(log_variance) - log_variance).sum(1).mean() / 2


def vae_loss(
    reconstructions: Sequence[Tensor],
    targets: Sequence[Tensor],
    mean: Tensor,
    log_variance: Tensor,
    kl_weight: float = 1e-5,
) -> Tensor:
    r"""Mean absolute error of each view of the images, and the divergence of the latents.

    .. math:: L = \sum_i \mathrm{mean}\,|\hat v_i - v_i| + \lambda L_{KL}

    Source: Binici et al., PRE-DFKD, arXiv 2201.03019, whose code has two views: the pixels, and the
    logits that the teacher gives them.

    Args:
        reconstructions: What became of each view, ``(B, ...)`` each.
        targets: What they were, in the same order and shapes.
        mean: Of the latents, ``(B, L)``.
        log_variance: Likewise.
        kl_weight: lambda.

    Returns:
        A scalar >= 0.
    """
    errors = [
        F.l1_loss(at_least_float32(reconstruction), at_least_float32(target))
        for reconstruction, target in zip(reconstructions, targets, strict=True)
    ]
    return torch.stack(errors).sum() + kl_weight * gaussian_kl(mean, log_variance)


@MODELS.register_module()
class VAELoss(nn.Module):
    """Module form of :func:`vae_loss`; views are chosen by name.

    Args:
        views: Of ``'pixel'``, ``'logit'`` and ``'feature'`` those that have to be reconstructed.
        kl_weight: Weight of the divergence of the latents.
        loss_weight: Factor on everything.

    Raises:
        UsageError: There is no view, or an unknown one.
    """

    def __init__(
        self,
        views: Sequence[str] = ('pixel', 'logit'),
        kl_weight: float = 1e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        views = (views,) if isinstance(views, str) else views
        if not views:
            raise UsageError(f'VAELoss: views is empty; name one or more of {_VIEWS}.')
        for view in views:
            check_choice('VAELoss: views', view, _VIEWS)
        self.views = tuple(views)
        self.kl_weight = kl_weight
        self.loss_weight = loss_weight

    def forward(
        self,
        reconstructions: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        mean: Tensor,
        log_variance: Tensor,
    ) -> Tensor:
        """See :func:`vae_loss`; views by name."""
        ours = [reconstructions[name] for name in self.views]
        theirs = [targets[name] for name in self.views]
        return self.loss_weight * vae_loss(ours, theirs, mean, log_variance, self.kl_weight)
