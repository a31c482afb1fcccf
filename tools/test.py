# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Test a distilled student: ``python tools/test.py CONFIG CHECKPOINT``.

CHECKPOINT is the ``student.pth`` or an ``epoch_N.pth`` of a run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmdfkd.utils import UsageError
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a distilled student')
    parser.add_argument('config', help='config file the student was trained with')
    parser.add_argument('checkpoint', help='student.pth or epoch_N.pth')
    parser.add_argument(
        '--work-dir',
        help="where the log goes; default: a folder test in the checkpoint's run, or else in the "
        "config's work_dir, or else work_dirs/<config stem>",
    )
    parser.add_argument('--out', help='write metrics and predictions to this .json file')
    parser.add_argument('--show-dir', help='draw mistakes and confusions into this folder')
    parser.add_argument(
        '--tta', action='store_true', help='average over each image and its mirror image'
    )
    add_cfg_options(parser, 'override config keys, e.g. test_dataloader.batch_size=100')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def run_of(args: argparse.Namespace) -> Path | None:
    """The folder of the run that left the checkpoint, if it did and can be written to."""
    folder = Path(args.checkpoint).parent
    beside = ('summary.json', Path(args.config).name)
    is_run = Path(args.checkpoint).is_file() and any((folder / name).is_file() for name in beside)
    return folder if is_run and os.access(folder, os.W_OK) else None


def main() -> None:
    """Run."""
    args = parse_args()
    with report_errors():
        cfg = load_config(args.config, args.cfg_options)
        cfg.launcher = args.launcher
        run = run_of(args) or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
        cfg.work_dir = args.work_dir or f'{run}/test'  # the training's record stays as it is
        cfg.load_from, cfg.resume = args.checkpoint, False
        hooks = cfg.get('default_hooks') or {}
        if args.tta:
            cfg.default_hooks = dict(hooks, tta=dict(hooks.get('tta') or {}, type='TTAHook'))
        check_config(cfg, phase='test')
        if args.out and Path(args.out).is_dir():
            raise UsageError(f'--out {args.out} is a folder. Give a .json file.')
        if args.out or args.show_dir:
            predictions = dict(type='PredictionHook', out=args.out, show_dir=args.show_dir)
            cfg.default_hooks = dict(cfg.get('default_hooks') or {}, predictions=predictions)
        from mmdfkd.engine import leave_processes
        from mmdfkd.registry import RUNNERS, class_of

        class_of(RUNNERS, dict(type=cfg.get('runner_type', 'DistillRunner'))).from_cfg(cfg).test()
        leave_processes()


if __name__ == '__main__':
    main()
