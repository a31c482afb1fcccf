# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""MixDistribution of KD³: an image takes on the channel statistics of another, Eqs. (11), (12).

Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
ICCV 2023, arXiv 2307.11469; official code: github.com/tangjialiang97/KD3. It is MixStyle (Zhou
et al., ICLR 2021, arXiv 2104.02008) applied to pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.precision import at_least_float32


def mix_distribution(
    images: Tensor, coefficients: Tensor, permutation: Tensor, eps: float = 1e-6
) -> Tensor:
    r"""Replace channel means and standard deviations by mixed ones, Eqs. (11) and (12).

    .. math::
        \tilde x_i = \hat\sigma_i \frac{x_i - \mu_i}{\sigma_i} + \hat\mu_i, \qquad
        \hat\sigma_i = m_i \sigma_i + (1 - m_i) \sigma_{j}, \quad
        \hat\mu_i = m_i \mu_i + (1 - m_i) \mu_{j}, \quad j = \pi(i)

    with mean and ``sqrt(variance + eps)`` per image and channel, the variance unbiased.

    Args:
        images: Normalised batch ``(B, C, H, W)`` with H * W >= 2; its memory format is kept.
        coefficients: m in [0, 1], ``(B,)``: the share of an image's *own* statistics. 1 returns
            the image, 0 gives it all of its partner's statistics.
        permutation: Index of each image's partner, int64 ``(B,)``.
        eps: Added to the variance; a constant image stays finite.

    Returns:
        ``(B, C, H, W)`` of the images' dtype; statistics are computed in at least float32.
    """
    x = at_least_float32(images)
    mean = x.mean(dim=(2, 3), keepdim=True)
    centred = x - mean
    # Two passes: as exact as torch.var_mean and, on a CPU, several times faster.
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / (x[0, 0].numel() - 1)
    deviation = (variance + eps).sqrt()
    own = coefficients.to(x.dtype).view(-1, 1, 1, 1)
    # Eq. (11)
    mixed_deviation = deviation[permutation].lerp(deviation, own)
    mixed_mean = mean[permutation].lerp(mean, own)
    # Eq. (12)
    return (centred * (mixed_deviation / deviation)).add_(mixed_mean).to(images.dtype)


@MODELS.register_module()
class MixDistribution(nn.Module):
    """Random :func:`mix_distribution` in training mode, the identity in evaluation mode.

    Coefficients come from Beta(alpha, alpha), one per image and shared by its channels, and
    partners from one permutation of the batch. For alpha = 0.1 most images either stay almost as
    they are or take nearly all of their partner's statistics: in 64 % of the draws
    min(m, 1 - m) < 0.01. A batch of one only has itself to mix with and is returned unchanged up
    to rounding. All draws are made on the images' device.

    Args:
        alpha: Both parameters of the Beta distribution, > 0. The paper says in (0, 1); 0.1 is
            the value in the official code.
        prob: Probability that an image is perturbed, in [0, 1].
        eps: Added to the variances.

    Raises:
        UsageError: If ``alpha`` or ``prob`` is out of range.
    """

    def __init__(self, alpha: float = 0.1, prob: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        if alpha <= 0:
            raise UsageError(f'MixDistribution: alpha={alpha}, expected a number > 0, e.g. 0.1.')
        if not 0 <= prob <= 1:
            raise UsageError(f'MixDistribution: prob={prob}, expected a number from 0 to 1.')
        self.alpha = alpha
        self.prob = prob
        self.eps = eps

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Draw coefficients ``(B,)`` float32 and a permutation ``(B,)`` int64 for a batch."""
        batch, device = len(images), images.device
        alpha = torch.full((batch,), self.alpha, device=device)
        coefficients = Beta(alpha, alpha, validate_args=False).sample()
        if self.prob < 1:
            kept = torch.rand(batch, device=device) >= self.prob
            coefficients = coefficients.masked_fill(kept, 1.0)
        return coefficients, torch.randperm(batch, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Perturb a normalised batch ``(B, C, H, W)``; the same tensor in evaluation mode."""
        if not self.training:
            return images
        return mix_distribution(images, *self.draw(images), self.eps)

    def extra_repr(self) -> str:
        """Return the arguments for printing."""
        return f'alpha={self.alpha}, prob={self.prob}, eps={self.eps}'
