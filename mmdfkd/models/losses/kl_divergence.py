# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Temperature-scaled Kullback-Leibler divergence between teacher and student."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    reduction: Literal['batchmean', 'sum', 'none'] = 'batchmean',
    scale: bool = True,
) -> Tensor:
    r"""KL divergence of the student from the teacher on softened probabilities.

    .. math::
        L = T^2 \cdot \frac{1}{N} \sum_i \sum_c p^T_{t,ic}
            \left(\log p^T_{t,ic} - \log p^T_{s,ic}\right),
        \qquad p^T = \mathrm{softmax}(z / T)

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
    section 2. With the factor T^2 the gradient with respect to the student logits is
    ``T / N * (p_s - p_t)``, so its size barely depends on T.

    Args:
        student_logits: Student outputs before the softmax, ``(N, K)``.
        teacher_logits: Teacher outputs before the softmax, ``(N, K)``. Gradient flows to them
            as well; detach them, or compute them under ``no_grad``, where that is not wanted.
        temperature: T > 0.
        reduction: 'batchmean' (sum over classes, mean over N; the definition above), 'sum'
            (over both) or 'none' (one value per sample). The mean over ``N * K`` is not
            offered: it makes the term K times too small.
        scale: Whether to multiply by T^2.

    Returns:
        A scalar, or ``(N,)`` for 'none'; >= 0 up to rounding, 0 where the two rows differ by a
        constant. Computed in float32 for half-precision logits.
    """
    student = F.log_softmax(at_least_float32(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(at_least_float32(teacher_logits) / temperature, dim=1)
    loss = F.kl_div(student, teacher, reduction=reduction, log_target=True)
    loss = loss.sum(1) if reduction == 'none' else loss
    return loss * temperature**2 if scale else loss


def agreeing_kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""KL divergence, T = 1, on the samples whose class teacher and student agree about.

    .. math::
        L = \frac{1}{N} \sum_i 1\{\arg\max_c s_{ic} = \arg\max_c t_{ic}\}
            \sum_c p_{t,ic} (\log p_{t,ic} - \log p_{s,ic})

    An image that makes it large is hard for the student and still what the teacher takes it for.
    Source: the adversarial term of CMI (Fang et al., IJCAI 2021, arXiv 2105.08584) and FastDFKD
    (arXiv 2112.06253), whose generators minimise its negative.

    Args:
        student_logits: ``(N, K)``. Gradient flows to both, none through the choice of samples.
        teacher_logits: ``(N, K)``.

    Returns:
        A scalar >= 0; divided by N, however many agree, so 0 where none does.
    """
    each = kl_divergence(student_logits, teacher_logits, 1.0, 'none')
    agree = student_logits.argmax(1) == teacher_logits.argmax(1)
    return (each * agree).mean()


@MODELS.register_module()
class KLDivergence(nn.Module):
    """Module form of :func:`kl_divergence`.

    Args:
        temperature: Softmax temperature T > 0.
        reduction: 'batchmean', 'sum' or 'none'.
        scale: Whether to multiply by T^2.
        loss_weight: Factor on the returned loss.

    Raises:
        UsageError: If the temperature or the reduction is not one of the above.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        reduction: Literal['batchmean', 'sum', 'none'] = 'batchmean',
        scale: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(
                f'KLDivergence: temperature={temperature}, expected a number > 0; '
                '4.0 is the usual choice.'
            )
        check_choice('KLDivergence: reduction', reduction, ('batchmean', 'sum', 'none'))
        self.temperature = temperature
        self.reduction = reduction
        self.scale = scale
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the weighted loss of logits ``(N, K)``."""
        return self.loss_weight * kl_divergence(
            student_logits, teacher_logits, self.temperature, self.reduction, self.scale
        )
