# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Draw a run again: ``python tools/visualization/vis_selection.py WORK_DIR``.

Writes ``figures/history.png`` (accuracy and selected share by epoch) and, for a run that selected
images by predictions, ``figures/selection.png`` (selected and rejected ones by class); for DFND
``figures/adaptation_matrix.png`` too.
"""

from __future__ import annotations

import argparse

from mmdfkd.utils.reporting import report_errors


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description='Draw the history and the selection of a run')
    parser.add_argument('work_dir', help='work directory of a training run')
    args = parser.parse_args()
    with report_errors():
        from mmdfkd.visualization import draw_run

        paths = draw_run(args.work_dir)
        for path in paths:
            print(path)
        if not paths:
            print(
                f'{args.work_dir} recorded neither an accuracy nor a selection, so there is '
                'nothing to draw.'
            )


if __name__ == '__main__':
    main()
