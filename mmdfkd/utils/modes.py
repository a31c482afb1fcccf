# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks in another mode for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


@contextmanager
def in_mode(network: nn.Module, mode: Literal['train', 'eval']) -> Iterator[None]:
    """Inside, a network is in train or eval mode; afterwards in that in which it was."""
    training = network.training
    network.train(mode == 'train')
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def dry_run(network: nn.Module, input_shape: Sequence[int]) -> Iterator[Tensor]:
    """Yields zeros ``(1, C, H, W)`` to ask a network with; inside, it remembers nothing."""
    image = torch.zeros(1, *input_shape).to(next(network.parameters()))
    with torch.no_grad(), in_mode(network, 'eval'):
        yield image
