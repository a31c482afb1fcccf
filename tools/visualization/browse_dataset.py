# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""See what a student sees: ``python tools/visualization/browse_dataset.py CONFIG --out FILE.png``.

Each row shows one training image as it is stored, then as it is augmented, several times.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdfkd.utils import UsageError, check_least
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.reporting import report_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw augmented training images of a config')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, default=Path('dataset.png'), help='PNG file to write')
    parser.add_argument('--number', type=int, default=12, help='how many images')
    parser.add_argument('--views', type=int, default=7, help='augmented views of each image')
    parser.add_argument('--seed', type=int, default=0, help='seed of images and views')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Draw."""
    args = parse_args()
    with report_errors():
        check_least('--number', args.number, 1)
        check_least('--views', args.views, 0)
        import torch
        from mmengine.registry import init_default_scope

        from mmdfkd.registry import DATASETS, MODELS
        from mmdfkd.utils.config_check import check_config
        from mmdfkd.utils.config_read import load_config
        from mmdfkd.visualization import save_image_grid

        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
        init_default_scope(cfg.get('default_scope', 'mmdfkd'))
        kind = cfg.train_dataloader.dataset.type
        if kind in ('LatentDataset', 'ImageBank'):
            raise UsageError(
                f'{args.config} learns from images that it makes itself ({kind}). See '
                'figures/samples in the folder of a run, or tools/visualization/vis_bank.py.'
            )
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        preprocessor = MODELS.build(cfg.model).data_preprocessor
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        torch.manual_seed(args.seed)
        indices = torch.randperm(len(dataset))[: args.number]
        batch = dataset.__getitems__(indices)
        views = [
            preprocessor.denormalize(preprocessor(batch, training=True)['inputs'])
            for _ in range(args.views)
        ]
        views.insert(0, preprocessor.denormalize(preprocessor(batch)['inputs']))
        images = torch.stack(views, 1).flatten(0, 1)
        save_image_grid(args.out, images, columns=len(views), upscale=2)
        print(
            f'{args.out}: {len(indices)} of {len(dataset):,} images of '
            f'{dataset.metainfo["name"]}; the first column is un-augmented'
        )


if __name__ == '__main__':
    main()
