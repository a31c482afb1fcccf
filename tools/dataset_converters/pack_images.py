# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pack images into a pool: ``python tools/dataset_converters/pack_images.py SOURCE --out POOL``.

A source is a folder, a tar (plain or compressed), a zip, a WebDataset shard, a batch of the
official down-sampled ImageNet, or a folder or archive of these. Run again after an interruption,
the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdfkd.utils.reporting import report_errors


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Pack images into a memory-mapped pool (uint8, N x S x S x C)'
    )
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='folder, tar, zip or batch')
    parser.add_argument('--out', required=True, metavar='POOL', help='folder to make')
    parser.add_argument('--size', type=int, default=32, help='side in pixels; default 32')
    parser.add_argument(
        '--filter',
        choices=('box', 'bilinear', 'bicubic', 'lanczos'),
        default='box',
        help='how pixels are averaged; default box, as in the official down-sampled ImageNet',
    )
    parser.add_argument(
        '--mode',
        choices=('squash', 'center-crop'),
        default='squash',
        help='bring the whole image to a square (default), or cut the central square first',
    )
    parser.add_argument('--grey', action='store_true', help='one channel instead of three')
    parser.add_argument(
        '--include',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help="only images whose name matches one of these, e.g. '*/train/*'",
    )
    parser.add_argument('--limit', type=int, metavar='N', help='read the first N images only')
    parser.add_argument(
        '--labels', action='store_true', help='keep the classes aside, in labels.npy'
    )
    parser.add_argument('--name', help='name of the pool; default that of its folder')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='processes that decode; default one per processor'
    )
    parser.add_argument(
        '--allow-truncated', action='store_true', help='make do with archives that are cut short'
    )
    parser.add_argument(
        '--dedup-against',
        metavar='SET',
        help='then list in keep.npy what does not occur in this pool, config or source of images',
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Pack."""
    args = parse_args()
    part = Path(f'{args.out}.part')

    def resume_hint() -> str:
        return f'what was packed waits in {part}; the same command continues.'

    with report_errors(resume_hint):
        from mmdfkd.datasets.packing import PackReport, Recipe, Source, pack

        recipe = Recipe(args.size, args.filter, args.mode, args.grey)
        sources = [Source(path, args.include, args.allow_truncated) for path in args.sources]
        report: PackReport = pack(
            sources, args.out, recipe, args.name, args.workers, args.limit, args.labels
        )
        print_report(report)


def print_report(report: object) -> None:
    print(report)


if __name__ == '__main__':
    main()
