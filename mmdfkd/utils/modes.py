# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks in another mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn


@contextmanager
def in_mode(network: nn.Module, mode: Literal['train', 'eval']) -> Iterator[None]:
    """Inside, a network is in train or eval mode; afterwards in that in which it was."""
    training = network.training
    network.train(mode == 'train')
    try:
        yield
    finally:
        network.train(training)
