# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Train what a config describes: ``python tools/train.py CONFIG``.

Leaves in the work directory the resolved config, the log, checkpoints, ``summary.json`` and
``student.pth``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from mmengine.config import Config

from mmdfkd.utils import UsageError
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train what a config describes')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where the run goes; default work_dirs/<config stem>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='continue from the latest checkpoint of the work directory, or from PATH',
    )
    parser.add_argument('--seed', type=int, help='random seed; default that of the config')
    parser.add_argument(
        '--quick', action='store_true', help='a toy-sized run of seconds, to see that it works'
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: bfloat16 on CPU and GPU'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate the student')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale learning rates with the batch size (auto_scale_lr.base_batch_size)',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='for all dataloaders')
    parser.add_argument('--no-persistent-workers', action='store_true', help='likewise')
    add_cfg_options(parser, 'override config keys, e.g. model.selector.threshold=0.9')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes one spelling or the other; both only set LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def make_config(args: argparse.Namespace) -> Config:
    """Load the config and apply the command line to it."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    check_config(cfg)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        from mmdfkd.engine.optimizers.autocast import use_amp

        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UsageError(
                f'--auto-scale-lr: {args.config} does not say which batch size its learning rates '
                'belong to. Add auto_scale_lr = dict(base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    from mmdfkd.engine import set_loader_defaults

    set_loader_defaults(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    if args.quick:
        from mmdfkd.apis.quick import make_quick

        make_quick(cfg)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f'The work directory {cfg.work_dir} cannot be made ({error.strerror}). Choose another '
            'with --work-dir.'
        ) from None
    if args.resume == 'auto':
        if Path(cfg.work_dir, 'last_checkpoint').is_file():
            cfg.load_from = None
        else:
            print(f'--resume: there is no checkpoint in {cfg.work_dir}, so the run begins.')
        cfg.resume = cfg.get('load_from') is None  # else the run starts from what the config names
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume
    return cfg


def main() -> None:
    """Run."""
    args = parse_args()
    work_dir = ''

    def resume_hint() -> str:
        last = Path(work_dir, 'last_checkpoint')
        if not work_dir or not last.exists():
            return 'no checkpoint was written yet; start again.'
        command = sys.argv if args.resume == 'auto' else [*sys.argv, '--resume']
        if args.launcher != 'none':
            return f'kept {last.read_text().strip()}. The same command with --resume continues.'
        return f'kept {last.read_text().strip()}. Continue with: python {shlex.join(command)}'

    with report_errors(resume_hint):
        cfg = make_config(args)
        work_dir = cfg.work_dir
        from mmdfkd.engine import leave_processes
        from mmdfkd.registry import RUNNERS, class_of

        class_of(RUNNERS, dict(type=cfg.get('runner_type', 'DistillRunner'))).from_cfg(cfg).train()
        leave_processes()


if __name__ == '__main__':
    main()
