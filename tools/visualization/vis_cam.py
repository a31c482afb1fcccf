# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Draw where teacher and student look: ``python tools/visualization/vis_cam.py CONFIG CHECKPOINT``.

Grad-CAM (Selvaraju et al., ICCV 2017) of both on test images, for the class that the teacher sees.
CHECKPOINT is the ``student.pth`` or an ``epoch_N.pth`` of a run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmdfkd.utils import UsageError, check_least
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw where teacher and student look')
    parser.add_argument('config', help='config file the student was trained with')
    parser.add_argument('checkpoint', help='student.pth or epoch_N.pth')
    parser.add_argument('--out', type=Path, default=Path('cam.png'), help='PNG file to write')
    parser.add_argument(
        '--num', type=int, default=8, help='how many test images, evenly from all of them'
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Draw."""
    args = parse_args()
    with report_errors():
        check_least('--num', args.num, 1)
        from mmdfkd.registry import RUNNERS, class_of
        from mmdfkd.utils.config_check import check_config
        from mmdfkd.utils.config_read import load_config

        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg, phase='test')
        cfg.load_from, cfg.resume, cfg.launcher, cfg.log_level = None, False, 'none', 'WARNING'
        cfg.visualizer = None  # this is no run to record
        with TemporaryDirectory() as folder:
            cfg.work_dir = folder
            kind = class_of(RUNNERS, dict(type=cfg.get('runner_type', 'DistillRunner')))
            runner = kind.from_cfg(cfg)
            if runner.model.teacher is None:
                raise UsageError(
                    f'{args.config} has no teacher to compare the student with. Give the config '
                    'of a method that distils.'
                )
            runner.load_checkpoint(args.checkpoint)
            draw(args.out, runner.model, runner.test_loop.dataloader.dataset, args.num)


def draw(path: Path, model: Any, dataset: Any, most: int) -> None:
    """Draw, and say what.

    Args:
        path: The PNG file to write.
        model: The algorithm, with its teacher and its student.
        dataset: The test images.
        most: At most how many of them.
    """
    import torch

    from mmdfkd.engine.hooks.teacher_hook import check_classes
    from mmdfkd.evaluation import grad_cam, map_reach
    from mmdfkd.visualization import plot_cam

    check_classes(model, dataset, 'test')
    count = min(most, len(dataset))
    indices = torch.arange(count) * len(dataset) // count  # a folder is sorted by class
    batch = model.eval().test_preprocessor(dataset.__getitems__(indices))
    images = batch['inputs']
    networks = {
        f'teacher {model.teacher.name}': model.teacher,
        f'student {model.student.name}': model.student,
    }
    with torch.no_grad():
        scores = {name: network(images).softmax(1) for name, network in networks.items()}
    asked = next(iter(scores.values())).argmax(1)
    plot_cam(
        path,
        dataset.images[indices.numpy()],
        dataset.metainfo['classes'] or [str(label) for label in range(model.student.num_classes)],
        asked,
        {name: grad_cam(network, images, asked) for name, network in networks.items()},
        scores,
        batch.get('label'),
        {name: map_reach(network) for name, network in networks.items()},
    )
    print(f'{path}: {count} of {len(dataset):,} images of {dataset.metainfo["name"]}')


if __name__ == '__main__':
    main()
