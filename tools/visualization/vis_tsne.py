# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Draw which images the teacher finds alike: ``python tools/visualization/vis_tsne.py WORK_DIR``.

t-SNE of the teacher's features of original, selected and rejected images (Figure 3 of KD³, ICCV
2023), and how far the groups lie from each other. Original images are those of the run's test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdfkd.utils import UsageError
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw original, selected and rejected images')
    parser.add_argument('work_dir', type=Path, help='work directory of a collection run')
    parser.add_argument('--out', type=Path, help='default WORK_DIR/figures/features.png')
    parser.add_argument('--per-group', type=int, default=1000, help='most images of each group')
    parser.add_argument('--seed', type=int, default=0, help='seed of draw and layout')
    return parser.parse_args()


def main() -> None:
    """Draw."""
    args = parse_args()
    with report_errors():
        from mmdfkd.registry import DATASETS
        from mmdfkd.visualization import draw_features
        from mmdfkd.visualization.records import run_config

        loader = run_config(args.work_dir).get('test_dataloader')
        if not loader:
            raise UsageError(
                f'The config of {args.work_dir} has no test_dataloader, so there are no images to '
                'measure distances from. Train with a test_dataloader.'
            )
        path, distances = draw_features(
            args.out or args.work_dir / 'figures' / 'features.png',
            args.work_dir,
            DATASETS.build(loader.dataset),
            args.per_group,
            args.seed,
        )
        for name, distance in distances.items():
            print(
                f'{name}: on average {distance.nearest:.2f} from the nearest original image, '
                f'{distance.centre:.2f} from their centre'
            )
        print(path)


if __name__ == '__main__':
    main()
