# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pictures of a run, when it is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from mmdfkd.registry import HOOKS
from mmdfkd.utils.files import write_npz

from .class_names import class_names
from .selection_hook import pool_of


@HOOKS.register_module()
class FigureHook(Hook):
    """Draw the run's history and its last selection into ``<work_dir>/figures``.

    Costs a few seconds after training, on the main process only. A picture that cannot be drawn is
    a warning in the log: the run has done its work by then. What an algorithm's method ``records``
    returns, arrays by name by file, is first kept as ``<file>.npz`` with the names of the classes,
    so that its picture can be drawn again too.
    """

    priority = 'VERY_LOW'

    def after_train(self, runner: Any) -> None:
        """Draw what the run left behind."""
        if runner.rank != 0:
            return
        from mmdfkd.visualization import draw_run

        try:
            _keep_records(runner)
            paths = draw_run(runner.work_dir, pool_of(runner))
        except Exception as error:
            runner.logger.warning(
                f'The figures were not drawn: {error} Try again with: '
                f'python tools/visualization/vis_selection.py {runner.work_dir}'
            )
        else:
            runner.logger.info(f'Drew {", ".join(str(path) for path in paths) or "no figure"}.')


def _keep_records(runner: Any) -> None:
    records = runner.model.records() if hasattr(runner.model, 'records') else {}
    for name, arrays in records.items():
        path = Path(runner.work_dir, f'{name}.npz')
        write_npz(path, classes=np.array(class_names(runner)), **arrays)
