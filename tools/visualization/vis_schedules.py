# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""See learning rates: ``python tools/visualization/vis_schedules.py CONFIG --out FILE.png``.

Draws, and prints, what the schedules of each optimiser will do, and with them any other parameter
that they move, such as momentum. Nothing is trained, and no weights are read; images only where a
schedule counts the iterations of an epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.reporting import report_errors

LISTED = 6  # values of a course that are printed


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw the learning rates of a config')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, default=Path('schedules.png'), help='PNG file to write')
    add_cfg_options(parser)
    return parser.parse_args()


def in_words(course: Sequence[tuple[float, float]], unit: str) -> str:
    """The values of a course in one line."""
    (_, first), *changes, (done, last) = course
    if len(changes) < LISTED:
        return ', '.join([f'{first:g}', *(f'{v:g} after {n:g} {unit}s' for n, v in changes)])
    highest = max(value for _, value in course)
    above = f', at most {highest:g}' if highest > max(first, last) else ''
    return f'from {first:g} to {last:g} in {done:g} {unit}s{above}'


def main() -> None:
    """Draw and print."""
    args = parse_args()
    with report_errors():
        from mmdfkd.apis.planned import plan_schedules
        from mmdfkd.utils.config_check import check_config
        from mmdfkd.utils.config_read import load_config
        from mmdfkd.visualization import plot_schedules

        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
        plan = plan_schedules(cfg)
        notes = [
            f'{role}: {kind} follows validations, so what it does is not known beforehand.'
            for role, kind in plan.unknown.items()
        ]
        if plan.varies:
            notes.append('Epochs are those of all images; a selection changes their length.')
        plot_schedules(
            args.out, plan.courses, plan.unit, note='\n'.join([Path(args.config).stem, *notes])
        )
        for key, courses in plan.courses.items():
            for name, course in courses.items():
                print(f'{key} of {name}: {in_words(course, plan.unit)}')
        print(*notes, args.out, sep='\n')


if __name__ == '__main__':
    main()
