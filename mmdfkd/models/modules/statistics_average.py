# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Statistics of many small batches of generated images, averaged over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdfkd.utils import UsageError

from .batch_statistics import BatchStatistics


class StatisticsAverage(nn.Module):
    r"""What BatchNorm layers saw of generated images so far, mixed into what they see now.

    .. math::
        \tilde\mu = (1 - m) \mu_{batch} + m \mu_{avg}, \qquad
        \mu_{avg} \leftarrow m \mu_{avg} + (1 - m) \mu_{batch}

    and likewise for variances. Compared with the teacher's statistics, the average over many
    batches has to match, so that a single one may specialise; its gradient is (1 - m) times as
    large. Source: Fang et al., "Up to 100x Faster Data-Free Knowledge Distillation", AAAI 2022,
    arXiv 2112.06253, and its published code.

    Args:
        channels: Sum of the channels of all layers.
        momentum: m in [0, 1); 0 leaves the statistics of a batch as they are.

    Attributes:
        mean: Averages of the means of all layers, one behind the other; a buffer.
        var: Averages of the variances.
        updates: How many batches they are of. The first one is taken as it is.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UsageError(f'model.bn_momentum is {momentum}; give 0 or more and less than 1.')
        self.momentum = momentum
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('var', torch.zeros(channels))
        self.updates = 0

    def forward(self, statistics: Sequence[BatchStatistics]) -> list[BatchStatistics]:
        """Mix the averages into the statistics of a batch; unchanged before the first update.

        Args:
            statistics: What ``record_batch_statistics`` recorded. Gradient flows to it.
        """
        if not self.momentum or not self.updates:
            return list(statistics)
        sizes = [len(layer.mean) for layer in statistics]
        averages = zip(self.mean.split(sizes), self.var.split(sizes), strict=True)
        m = self.momentum
        return [
            layer._replace(mean=layer.mean.lerp(mean, m), var=layer.var.lerp(var, m))
            for layer, (mean, var) in zip(statistics, averages, strict=True)
        ]

    @torch.no_grad()
    def update(self, statistics: Sequence[BatchStatistics]) -> None:
        """Take a batch into the averages; once per round of synthesis."""
        rate = 1 - self.momentum if self.updates else 1.0
        self.mean.lerp_(torch.cat([layer.mean for layer in statistics]), rate)
        self.var.lerp_(torch.cat([layer.var for layer in statistics]), rate)
        self.updates += 1

    def get_extra_state(self) -> Tensor:
        """Number of updates, for checkpoints."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of updates of a checkpoint."""
        self.updates = int(state)
