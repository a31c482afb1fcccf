# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A progress bar with time left, for whoever watches a training."""

from __future__ import annotations

import atexit
import logging
import sys
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmdfkd.registry import HOOKS
from mmdfkd.utils.progress import progress_bar


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show one bar for the whole training below the log lines; silent without a terminal."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        """Show the bar and let log lines scroll above it."""
        self.by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        total = runner.max_iters if self.by_iteration else runner.max_epochs
        self.bar = progress_bar(transient=False)
        self.bar.start()
        atexit.register(self.bar.stop)  # an interrupted run must give the cursor back
        unit = 'iterations' if self.by_iteration else 'epochs'
        self.task = self.bar.add_task(
            f'{runner.model.method} ({unit})',
            total=total,
            completed=runner.iter if self.by_iteration else runner.epoch,
        )
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stdout)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Advance now and then."""
        if self.by_iteration and runner.iter % 10 == 0:
            self.bar.update(self.task, completed=runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Advance."""
        if not self.by_iteration:
            self.bar.update(self.task, completed=runner.epoch + 1)

    def after_train(self, runner: Any) -> None:
        """Take the bar away."""
        self.bar.stop()
        atexit.unregister(self.bar.stop)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stdout)
