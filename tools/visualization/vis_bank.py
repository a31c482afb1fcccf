# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Draw a bank of synthetic images: ``python tools/visualization/vis_bank.py BANK``.

A row for each class: how many images were made for it, and some of them. With ``--config CONFIG``
its teacher is asked what it sees in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmdfkd.utils import UsageError
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw a bank of synthetic images')
    parser.add_argument(
        'bank', type=Path, help='folder of the bank, such as work_dirs/RUN/bank, or that of its run'
    )
    parser.add_argument('--out', type=Path, help='PNG file to write; default BANK.png')
    parser.add_argument('--config', help='config with the teacher that made the bank')
    parser.add_argument('--per-class', type=int, default=10, help='most images of a class')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Draw."""
    args = parse_args()
    with report_errors():
        from mmdfkd.datasets import ImagePool
        from mmdfkd.visualization import plot_bank

        run = args.bank / 'bank'
        pool = ImagePool(run if run.is_dir() else args.bank)
        facts = pool.meta.get('bank')
        if facts is None:
            raise UsageError(
                f'{pool.root} is an image pool, but no bank: nobody made its images for a class. '
                'Draw the selection of a run from it with tools/visualization/vis_selection.py.'
            )
        labels, confidences = None, None
        if args.config:
            labels, confidences = ask_teacher(args.config, args.cfg_options, pool, facts)
        path = plot_bank(
            args.out or pool.root.with_name(f'{pool.root.name}.png'),
            pool.images,
            pool.extra('labels'),
            facts['classes'],
            labels,
            confidences,
            f'{facts["method"]}: images made out of {facts["teacher_name"]}',
            args.per_class,
            args.seed,
        )
        print(f'{path}: {len(pool):,} images, {facts["rounds"]} rounds of {facts["method"]}')


def ask_teacher(config: str, options: dict | None, pool: Any, facts: dict) -> tuple[Any, Any]:
    """What the teacher of a config sees in the images, and how sure it is.

    Raises:
        UsageError: It is another teacher than that of the bank.
    """
    from mmengine.registry import init_default_scope

    from mmdfkd.engine import predict_logits
    from mmdfkd.models.classifiers import build_teacher, network_fingerprint
    from mmdfkd.models.data_preprocessors import BatchPreprocessor
    from mmdfkd.utils.config_read import load_config
    from mmdfkd.utils.device import choose_device

    cfg = load_config(config, options)
    init_default_scope(cfg.get('default_scope', 'mmdfkd'))
    teacher = build_teacher(cfg.model.teacher)
    if network_fingerprint(teacher) != facts['teacher']:
        raise UsageError(
            f'{config} has another teacher than the one that {pool.root} was made with '
            f'({facts["teacher_name"]}). Give the config of the bank, or leave out --config.'
        )
    device = choose_device()
    preprocessor = BatchPreprocessor(teacher.mean, teacher.std).to(device)
    words = f'{teacher.name} looks at {len(pool):,} images'
    logits = predict_logits(teacher.to(device), pool, preprocessor, description=words)
    confidences, labels = logits.softmax(1).max(1)
    return labels, confidences


if __name__ == '__main__':
    main()
