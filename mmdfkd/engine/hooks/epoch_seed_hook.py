# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Randomness that depends on the seed, the epoch and the rank, and on nothing else."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmdfkd.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed all generators anew before each epoch.

    A resumed run then draws what the uninterrupted one would have drawn, without generator states
    in checkpoints, and ranks draw differently. Loops that count iterations are seeded every
    ``interval`` iterations, which should divide the interval of checkpoints.

    Args:
        interval: Iterations between two seedings where the loop counts iterations.
    """

    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval

    def before_train_epoch(self, runner: Any) -> None:
        """Seed for this epoch."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._seed(runner, runner.epoch)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed for this stretch of iterations."""
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if by_iteration and runner.iter % self.interval == 0:
            self._seed(runner, runner.iter)

    @staticmethod
    def _seed(runner: Any, count: int) -> None:
        sequence = np.random.SeedSequence([runner.seed, runner.rank, count])
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
