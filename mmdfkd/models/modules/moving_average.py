# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""An exponential moving average of a network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError, check_least


@MODELS.register_module()
class MovingAverage(nn.Module):
    r"""A copy of a network that follows it slowly, all tensors of its state alike.

    .. math:: \bar\theta \leftarrow d \, \bar\theta + (1 - d) \, \theta

    Before iteration ``start`` the copy is simply overwritten. Statistics of batch norms and
    vectors of spectral norms are averaged too; counters are copied. It stays in eval mode.

    Args:
        network: What is followed; nothing of it is kept here.
        decay: d in [0, 1). Half of what there was is forgotten in ``ln 2 / (1 - d)`` updates.
        start: The first iteration that averages, counted from 1.

    Attributes:
        network: The copy.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999, start: int = 1000) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UsageError(f'model.average.decay is {decay}; give 0 or more and less than 1.')
        check_least('model.average.start', start, 0)
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.start = start

    def train(self, mode: bool = True) -> MovingAverage:
        """The copy stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, iteration: int) -> None:
        """Move towards the network as it is after this iteration, counted from 1."""
        decay = self.decay if iteration >= self.start else 0.0
        states = (self.network.state_dict().values(), network.state_dict().values())
        pairs = list(zip(*states, strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        own, other = map(list, zip(*floating, strict=True))
        torch._foreach_lerp_(own, other, 1 - decay)
        for counter, value in pairs:
            if not counter.is_floating_point():
                counter.copy_(value)

    def forward(self, *args: Tensor) -> Tensor:
        """The copy's forward pass."""
        return self.network(*args)
