# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Feature integration of HiDFD: what a discriminator learns from a teacher's features.

Tang et al., "Hybrid Data-Free Knowledge Distillation", AAAI 2025, arXiv 2412.13525.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import check_least


class Integration(NamedTuple):
    """Both parts of feature integration, not weighted.

    Attributes:
        transfer: L_trans, how far the discriminator is from the teacher on the same images.
        blend: L_blend, how far on real images from the teacher on fakes, and the reverse.
    """

    transfer: Tensor
    blend: Tensor


def mean_distance(first: Tensor, second: Tensor) -> Tensor:
    r"""Mean Euclidean distance of rows.

    .. math:: d = \frac1B \sum_i \lVert p_i - q_i \rVert_2

    Neither squared nor divided by the dimension, so that each row's gradient has the length 1/B,
    and is zero where rows are equal.

    Args:
        first: ``(B, D)``.
        second: ``(B, D)``.
    """
    return (first - second).norm(dim=1).mean()


def feature_integration(
    teacher_real: Tensor, teacher_fake: Tensor, own_real: Tensor, own_fake: Tensor
) -> Integration:
    r"""Compare what the discriminator aligns with the teacher's pooled features.

    .. math::
        L_{trans} &= d(t(x_r), a(x_r)) + d(t(x_f), a(x_f)) \\
        L_{blend} &= d(t(x_r), a(x_f)) + d(t(x_f), a(x_r))

    Transfer gives the discriminator features that few images cannot teach it; blending blurs the
    border between real and fake, so that its scores do not run away from the generator. Images are
    paired by their places in the batches.

    Args:
        teacher_real: t(x_r), ``(B, D)``, a constant.
        teacher_fake: t(x_f), likewise.
        own_real: a(x_r), the discriminator's, ``(B, D)``.
        own_fake: a(x_f), likewise.
    """
    return Integration(
        mean_distance(teacher_real, own_real) + mean_distance(teacher_fake, own_fake),
        mean_distance(teacher_real, own_fake) + mean_distance(teacher_fake, own_real),
    )


@MODELS.register_module()
class FeatureIntegrationLoss(nn.Module):
    """Module form of :func:`feature_integration`.

    Args:
        transfer_weight: Factor of L_trans.
        blend_weight: Factor of L_blend.
        detach: Cut the gradient, so that the loss is only measured (published code, where it is
            computed without a graph by mistake).
    """

    def __init__(
        self, transfer_weight: float = 0.1, blend_weight: float = 0.1, detach: bool = False
    ) -> None:
        super().__init__()
        check_least('model.feature_integration.transfer_weight', transfer_weight, 0)
        check_least('model.feature_integration.blend_weight', blend_weight, 0)
        self.transfer_weight = transfer_weight
        self.blend_weight = blend_weight
        self.detach = detach

    @property
    def is_used(self) -> bool:
        """Whether there is anything to compute."""
        return self.transfer_weight > 0 or self.blend_weight > 0

    def forward(
        self, teacher_real: Tensor, teacher_fake: Tensor, own_real: Tensor, own_fake: Tensor
    ) -> Integration:
        """The weighted parts; see :func:`feature_integration`."""
        if self.detach:
            own_real, own_fake = own_real.detach(), own_fake.detach()
        parts = feature_integration(teacher_real, teacher_fake, own_real, own_fake)
        return Integration(self.transfer_weight * parts.transfer, self.blend_weight * parts.blend)
