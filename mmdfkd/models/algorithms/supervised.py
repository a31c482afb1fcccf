# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Training on labelled original data: teachers, and the students they are compared with."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

from .base import BaseDistiller


@MODELS.register_module()
class Supervised(BaseDistiller):
    """Cross-entropy on labels. Not distillation: it makes teachers and the baseline "S.".

    Args:
        student: ``Classifier`` config of the network to train; must state ``input_shape``,
            ``mean`` and ``std``.
        data_preprocessor: Config of the training road's ``BatchPreprocessor``.
    """

    reads_labels = True

    def __init__(self, student: dict, data_preprocessor: dict | None = None) -> None:
        super().__init__(student, data_preprocessor=data_preprocessor)

    def roles(self) -> dict[str, list[nn.Module]]:
        """One optimiser."""
        return dict(student=[self.student])

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step on labelled images."""
        batch = self.data_preprocessor(data, training=True)
        if 'label' not in batch:
            raise UsageError(
                'Supervised training needs labels and the training images have none. Set '
                'train_dataloader.dataset to a labelled dataset, or choose a data-free method.'
            )
        with optim_wrapper['student'].optim_context(self):
            loss = F.cross_entropy(self.student(batch['inputs']), batch['label'])
        optim_wrapper['student'].update_params(loss)
        return dict(loss=loss.detach())
