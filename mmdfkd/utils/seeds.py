# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Seeds made of seeds and counts, and draws that leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import torch

from .errors import UsageError


def derive_seed(*numbers: int, stream: int | None = None) -> int:
    """A seed for torch that depends on all numbers and their order, and looks like none of them.

    Args:
        numbers: For example the seed of a run and the number of an epoch, each 0 or more.
        stream: Keeps purposes apart that count alike.

    Returns:
        A number in [0, 2^63).
    """
    key = () if stream is None else (stream,)
    words = np.random.SeedSequence(numbers, spawn_key=key).generate_state(1, np.uint64)
    return int(words[0] >> 1)


def check_seed(key: str, seed: Any) -> None:
    """Raise a :class:`UsageError` where a seed is none of numpy's; ``None`` is left alone."""
    fits = isinstance(seed, Integral) and 0 <= int(seed) < 2**32
    if seed is not None and not fits:
        raise UsageError(f'{key} is {seed}; give a whole number from 0 to 4294967295.')


@contextmanager
def random_numbers_apart() -> Iterator[None]:
    """Inside, torch draws; outside, on the CPU and on the GPU, it goes on as if it had not."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
