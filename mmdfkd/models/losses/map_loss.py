# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What losses on feature maps share: which maps are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmdfkd.utils import UsageError

#: ``(C, H, W)`` of one map.
Shape = tuple[int, int, int]


class MapLoss(nn.Module, ABC):
    """A loss summed over pairs of maps, one of the student and one of the teacher each.

    Maps are those of ``Classifier.extract(...).maps``, so the ``out_indices`` of both backbones say
    which there are; the i-th of one belongs to the i-th of the other.

    Args:
        indices: Positions of the pairs that count, from 0; ``None`` takes all.
        loss_weight: Factor on the returned sum.
    """

    def __init__(self, indices: Sequence[int] | None = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.indices = None if indices is None else tuple(indices)
        self.loss_weight = loss_weight

    @abstractmethod
    def compare(self, index: int, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """The loss of pair ``index``, a scalar; maps ``(B, C, H, W)`` of either network."""

    def condense(self, feature: Tensor) -> Tensor:
        """What may stand for a map of the teacher that is compared many times: less, or itself."""
        return feature

    def fit_maps(
        self,
        student_shapes: Sequence[Shape],
        teacher_shapes: Sequence[Shape],
        learner: str = 'student',
    ) -> None:
        """Get ready for maps of these shapes; whoever builds the loss calls this once.

        Args:
            student_shapes: Of the network that learns.
            teacher_shapes: Of the one that it looks up to.
            learner: What the former is called under ``model``.

        Raises:
            UsageError: Not every map that counts has a partner.
        """
        found = (
            f'the {learner} returns {len(student_shapes)} and the teacher {len(teacher_shapes)} '
            f'feature maps. Set model.{learner}.backbone.out_indices and '
            'model.teacher.backbone.out_indices (maps of a ForeignClassifier)'
        )
        name, pairs = type(self).__name__, min(len(student_shapes), len(teacher_shapes))
        if self.indices is None:
            if len(student_shapes) != len(teacher_shapes):
                raise UsageError(f'{name} compares maps in pairs, but {found} to equally many.')
        elif not self.indices or not all(0 <= index < pairs for index in self.indices):
            raise UsageError(
                f'{name}: indices={self.indices}, but {found}, or choose indices from 0 to '
                f'{pairs - 1}.'
            )
        indices = range(pairs) if self.indices is None else self.indices
        self.fit_pairs({i: (student_shapes[i], teacher_shapes[i]) for i in indices}, learner)

    def fit_pairs(self, pairs: Mapping[int, tuple[Shape, Shape]], learner: str) -> None:
        """Get ready for pairs of shapes, by the position of the map."""

    def forward(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum over the pairs of maps, each ``(B, C_i, H_i, W_i)``."""
        indices = range(len(student_maps)) if self.indices is None else self.indices
        losses = [self.compare(i, student_maps[i], teacher_maps[i]) for i in indices]
        return self.loss_weight * torch.stack(losses).sum()


def fit_attention(
    attention: nn.Module, teacher_shapes: Sequence[Shape], **learners: Sequence[Shape]
) -> None:
    """Get a loss ready that compares maps in a method which trains none of its weights.

    Args:
        attention: The loss, ``model.attention``.
        teacher_shapes: ``(C, H, W)`` of the teacher's maps.
        **learners: Those of the networks that learn, by their names under ``model``.

    Raises:
        UsageError: It compares no maps, or has weights of its own.
    """
    if isinstance(attention, MapLoss):
        for learner, shapes in learners.items():
            attention.fit_maps(shapes, teacher_shapes, learner)
    if not isinstance(attention, MapLoss) or list(attention.parameters()):
        raise UsageError(
            f'model.attention.type={type(attention).__name__}: here a loss compares maps and has '
            'no weights of its own, which nobody would train. Leave out the type, which is '
            "'AttentionTransferLoss', or choose KD, whose feature_losses take hints."
        )
