# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Compare runs: ``python tools/analysis_tools/analyze_logs.py WORK_DIR ... --out FILE.png``.

Prints the last and the best value of each run and draws them against the epoch in one picture, as
the sensitivity figures of papers do (Figure 4 of KD³, ICCV 2023).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdfkd.utils import UsageError
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Compare the scalars of several runs')
    parser.add_argument('work_dirs', nargs='+', type=Path, help='work directories of runs')
    parser.add_argument('--names', nargs='+', help='what to call them; default their folders')
    parser.add_argument('--key', default='accuracy/top1', help='which scalar')
    parser.add_argument('--out', type=Path, help='PNG file to write')
    parser.add_argument('--title', default='One run per setting', help='heading of the picture')
    return parser.parse_args()


def main() -> None:
    """Print and draw."""
    args = parse_args()
    with report_errors():
        from mmdfkd.visualization import plot_sweep
        from mmdfkd.visualization.records import (
            curve_of,
            read_history,
            read_summary,
            the_teacher,
            unit_of,
        )

        names = args.names or [folder.absolute().name for folder in args.work_dirs]
        if len(names) != len(args.work_dirs) or len(set(names)) < len(names):
            raise UsageError(
                f'{len(args.work_dirs)} work directories need as many different names, but they '
                f'are {names}. Give --names.'
            )
        curves, units = {}, {}
        for name, folder in zip(names, args.work_dirs, strict=True):
            records = read_history(folder)
            curves[name] = curve_of(records, args.key)
            if not curves[name]:
                known = sorted({key for record in records for key in record})
                if not known:
                    raise UsageError(f'{folder} has recorded nothing yet. Leave it out, or wait.')
                raise UsageError(
                    f'{folder} recorded no {args.key!r}. Give --key one of: {", ".join(known)}.'
                )
            units[name] = unit_of(records, args.key)
            values = [value for _, value in curves[name]]
            where = 'at' if units[name] == 'iteration' else 'in'
            print(
                f'{name}: last {values[-1]:.4g}, highest {max(values):.4g}, '
                f'lowest {min(values):.4g} {where} {len(values)} {units[name]}s'
            )
        if args.out:
            teacher, label = None, args.key
            if args.key == 'accuracy/top1':
                label = 'accuracy on unseen test images, in percent'
                teacher = the_teacher(read_summary(folder) for folder in args.work_dirs)
            if len(set(units.values())) > 1:
                raise UsageError(
                    f'{args.key} is recorded by {" and by ".join(sorted(set(units.values())))}, '
                    f'which share no axis: {units}. Draw these runs apart.'
                )
            plot_sweep(args.out, curves, teacher, args.title, label, units[names[0]])
            print(args.out)


if __name__ == '__main__':
    main()
