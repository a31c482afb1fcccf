# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Hints: the student's map, through a regressor trained with it, equals the teacher's.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils.errors import UsageError, check_choice
from mmdfkd.utils.precision import at_least_float32

from .map_loss import MapLoss, Shape


def hint_regression(
    regressed_map: Tensor, teacher_map: Tensor, form: Literal['mse', 'half_sum'] = 'mse'
) -> Tensor:
    r"""Squared distance of a regressed map from the teacher's, the paper's Eq. (3).

    .. math::
        L_{half\_sum} = \frac1B \sum_i \frac12 \lVert r(F^s_i) - F^t_i \rVert_2^2, \qquad
        L_{mse} = \frac{2}{CHW} L_{half\_sum}

    Args:
        regressed_map: Student's map after the regressor, ``(B, C, H, W)``.
        teacher_map: Same shape; treated as a constant.
        form: 'half_sum' (paper) or 'mse', the mean over all elements (most published code).

    Returns:
        A scalar >= 0. Computed in float32 for half-precision maps.
    """
    square = (at_least_float32(regressed_map) - at_least_float32(teacher_map.detach())).square()
    return square.mean() if form == 'mse' else square.sum() / (2 * len(square))


@MODELS.register_module()
class HintLoss(MapLoss):
    """:func:`hint_regression` with a regressor for each pair of maps, summed over the pairs.

    A regressor is one convolution with bias. It is trained together with the student and is no part
    of it: an exported student has none. Where the maps are equally large it keeps their size; where
    the student's is larger it has the paper's kernel, ``H_s - H_t + 1``, without padding.

    Args:
        indices: Positions of the pairs that count, see ``MapLoss``. The paper has one pair, in the
            middle of the networks.
        kernel_size: Kernel where the maps are equally large; odd.
        form: 'mse' (most published code) or 'half_sum' (paper).
        loss_weight: Factor on the returned sum.

    Raises:
        UsageError: If the kernel is even, the form unknown, or, in ``fit_maps``, a student's map
            smaller than its teacher's.
    """

    def __init__(
        self,
        indices: Sequence[int] | None = None,
        kernel_size: int = 1,
        form: Literal['mse', 'half_sum'] = 'mse',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(indices, loss_weight)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UsageError(
                f'HintLoss: kernel_size={kernel_size}, expected an odd number, which keeps the '
                'size of the map: 1 or 3.'
            )
        check_choice('HintLoss: form', form, ('mse', 'half_sum'))
        self.kernel_size = kernel_size
        self.form = form
        self.regressors = nn.ModuleDict()  # by index

    def fit_pairs(self, pairs: Mapping[int, tuple[Shape, Shape]], learner: str) -> None:
        """Make the regressors from ``(C_s, H_s, W_s)`` to ``(C_t, H_t, W_t)``."""
        for index, ((source, *size), (target, *hint_size)) in pairs.items():
            kernel, padding = [self.kernel_size] * 2, self.kernel_size // 2
            if size != hint_size:
                kernel, padding = [s - h + 1 for s, h in zip(size, hint_size, strict=True)], 0
            if min(kernel) < 1:
                raise UsageError(
                    f"HintLoss: map {index} of the {learner} is {size[0]}x{size[1]}, the teacher's "
                    f'{hint_size[0]}x{hint_size[1]}; a hint cannot be larger. Pair other maps '
                    f'with model.{learner}.backbone.out_indices, or leave this one out of indices.'
                )
            height, width = kernel
            conv = nn.Conv2d(source, target, (height, width), padding=padding)
            self.regressors[str(index)] = conv

    def compare(self, index: int, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """The hint loss of one pair."""
        return hint_regression(self.regressors[str(index)](student_map), teacher_map, self.form)
