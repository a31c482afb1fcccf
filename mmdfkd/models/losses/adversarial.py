# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What generator and discriminator of a GAN play for: hinge and class-wise losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hinge_loss(score: Tensor, is_real: bool) -> Tensor:
    r"""Discriminator's hinge loss of one kind of images.

    .. math:: L = \frac1B \sum_i \max(0, 1 \mp D(x_i))

    minus for real images, plus for fakes. Source: Lim and Ye, Geometric GAN, arXiv 1705.02894.
    (The generator's is minus the mean score of its fakes.)

    Args:
        score: ``(B,)``.
        is_real: Which kind they are.

    Returns:
        A scalar >= 0.
    """
    return F.relu(1 - score if is_real else 1 + score).mean()


def real_or_fake_class_loss(logits: Tensor, labels: Tensor, is_real: bool) -> Tensor:
    r"""Discriminator's loss of one kind of images in an auxiliary discriminative classifier.

    The classifier tells 2K things apart: slot 2k is "real, of class k", slot 2k + 1 "fake, of
    class k".

    .. math:: L = \mathrm{CE}(q(x), 2y) \ \text{(real)}, \qquad \mathrm{CE}(q(x), 2y + 1)
        \ \text{(fake)}

    Source: Hou et al., ADC-GAN, ICML 2022, arXiv 2107.10060.

    Args:
        logits: ``(B, 2K)``.
        labels: Classes y in [0, K), ``(B,)``.
        is_real: Which kind they are.

    Returns:
        A scalar >= 0.
    """
    return F.cross_entropy(logits, 2 * labels + (0 if is_real else 1))


def pass_for_real_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Generator's loss in an auxiliary discriminative classifier.

    .. math:: L = \mathrm{CE}(q(x), 2y) - \mathrm{CE}(q(x), 2y + 1)
        = \frac1B \sum_i q_{2y_i + 1}(x_i) - q_{2y_i}(x_i)

    A difference of logits, bounded by nothing but the discriminator's spectral norm. Source: Hou et
    al., ADC-GAN, ICML 2022, arXiv 2107.10060.

    Args:
        logits: Of generated images, ``(B, 2K)``; slots as in :func:`real_or_fake_class_loss`.
        labels: Classes they were made for, ``(B,)``.

    Returns:
        A scalar.
    """
    real = logits.gather(1, 2 * labels[:, None])
    fake = logits.gather(1, 2 * labels[:, None] + 1)
    return (fake - real).mean()
