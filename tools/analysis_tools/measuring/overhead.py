# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What the Runner takes for an iteration that does nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from .runners import build_runner
from .timing import Clock, median

BLOCK = 250  # iterations on the clock at a time
INTERVAL = 50  # iterations between log lines, as in the recipes
DONE = 1_000_000


class BlockHook(Hook):
    """Time blocks of iterations; in the middle of them, pretend that a million have passed."""

    priority = 'LOWEST'

    def __init__(self, clock: Clock, blocks: int) -> None:
        self.clock = clock
        self.blocks = blocks
        self.times: list[float] = []

    def before_train(self, runner: Any) -> None:
        """Start."""
        self.started = self.clock()

    def after_train_iter(self, runner: Any, batch_idx: int, **ignored: Any) -> None:
        """Read the clock at the end of a block."""
        if (batch_idx + 1) % BLOCK == 0:
            self.times.append(self.clock() - self.started)
            if len(self.times) == self.blocks:
                pass_a_million(runner)
            self.started = self.clock()


def pass_a_million(runner: Any) -> None:
    """Leave the Runner with the count and the histories of a million iterations."""
    runner.train_loop._iter = DONE
    records = np.zeros(DONE // INTERVAL)
    for name in list(runner.message_hub.log_scalars):
        runner.message_hub.log_scalars[name] = HistoryBuffer(records, np.ones_like(records))


def measure_overhead(
    args: argparse.Namespace, clock: Clock, folder: str
) -> Iterator[dict[str, Any]]:
    """Rows of the first iterations, and of those after a million.

    The step of KD is one that returns five numbers. All else is as in a recipe: a loader, of two
    images a batch, every hook, a log line every 50 iterations.
    """
    blocks = args.pairs + 1
    per_epoch = 2 * blocks * BLOCK
    settings = argparse.Namespace(**{**vars(args), 'iterations': INTERVAL, 'images': 2 * per_epoch})
    runner = build_runner(settings, folder, 'KD', 2, per_epoch // INTERVAL)
    outputs = {f'loss_{i}': torch.zeros((), device=args.device) for i in range(5)}
    runner.model.train_step = lambda data, optim_wrapper: outputs
    hook = BlockHook(clock, blocks)
    runner.register_hook(hook)
    runner.train()
    for what, times in (('first', hook.times[1:blocks]), ('after 10^6', hook.times[blocks + 1 :])):
        yield {'iterations': what, 'us/iteration': 1e6 * median(times) / BLOCK}
