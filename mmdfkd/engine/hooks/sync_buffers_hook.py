# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One set of BatchNorm statistics on all processes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmdfkd.models.modules import FeatureBank
from mmdfkd.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Average the model's buffers over the processes at the end of each epoch.

    Loops that count iterations average before each validation, after the last iteration and every
    ``interval`` iterations, which should divide the interval of checkpoints. This takes the place
    of mmengine's hook of the name, whose mean in single precision does not give equal values back
    when the number of processes is no power of two: it would change the teacher. A bank of
    features, which all processes fill with the same rows, is left out: there may be a gigabyte of
    them.

    Args:
        interval: Iterations between two averages where the loop counts iterations.
    """

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval

    def after_train_epoch(self, runner: Any) -> None:
        """Average."""
        self._average(runner)

    def before_val_epoch(self, runner: Any) -> None:
        """Average what an unfinished epoch has changed."""
        self._average(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Average now and then in a loop that counts iterations."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._average(runner)

    @staticmethod
    def _average(runner: Any) -> None:
        """Average in double precision, so that what is equal everywhere stays as it is."""
        parts = [part for part in runner.model.modules() if not isinstance(part, FeatureBank)]
        buffers = [buffer for part in parts for buffer in part.buffers(recurse=False)]
        if get_world_size() == 1 or not buffers:
            return
        flat = torch.cat([buffer.reshape(-1).double() for buffer in buffers])
        all_reduce(flat, 'mean')
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))
