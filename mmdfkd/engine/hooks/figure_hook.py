# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pictures of a run, when it is over."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmdfkd.registry import HOOKS


@HOOKS.register_module()
class FigureHook(Hook):
    """Draw the run's history and its last selection into ``<work_dir>/figures``.

    Costs a few seconds after training, on the main process only. A picture that cannot be drawn is
    a warning in the log: the run has done its work by then.
    """

    priority = 'VERY_LOW'

    def after_train(self, runner: Any) -> None:
        """Draw what the run left behind."""
        if runner.rank != 0:
            return
        from mmdfkd.visualization import draw_run

        try:
            paths = draw_run(runner.work_dir, runner.train_dataloader.dataset)
        except Exception as error:
            runner.logger.warning(
                f'The figures were not drawn: {error} Try again with: '
                f'python tools/visualization/vis_selection.py {runner.work_dir}'
            )
        else:
            runner.logger.info(f'Drew {", ".join(str(path) for path in paths) or "no figure"}.')
