# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pack images into a pool: ``python tools/dataset_converters/pack_images.py SOURCE --out POOL``.

A source is a folder, a tar (plain or compressed), a zip, a WebDataset shard, a batch of the
official down-sampled ImageNet, SVHN's .mat, or a pool; tars, zips and batches in a folder, and tars
and batches in an archive, are read as well. Several sources become one pool. Run again after an
interruption, the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import folder_to_make
from mmdfkd.utils.reporting import report_errors

if TYPE_CHECKING:
    from mmdfkd.datasets import PackedDataset
    from mmdfkd.datasets.packing import PackReport


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Pack images into a memory-mapped pool (uint8, N x S x S x C)'
    )
    parser.add_argument(
        'sources', nargs='+', metavar='SOURCE', help='folder, tar, zip, batch or pool'
    )
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
        action='append',
        default=[],
        metavar='PATTERN',
        help="only images whose name within the source matches, e.g. 'train/*' in a folder, "
        "'*/train/*' in an archive with one folder at its top; may be given several times",
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
    args.out = folder_to_make(args.out)

    again = (
        f'{args.out} is finished; filter_pool.py {args.out} --dedup-against {args.dedup_against}'
    )

    def resume_hint() -> str:
        if (args.out / 'meta.json').exists():
            return (
                f'{again} lists its duplicates.' if args.dedup_against else 'the pool is finished.'
            )
        return f'what was packed waits in {args.out}.part; the same command continues.'

    with report_errors(resume_hint):
        from mmdfkd.datasets.image_pool import refuse_taken
        from mmdfkd.datasets.packing import Recipe, Source, open_images, pack
        from mmdfkd.datasets.packing.dedup import perceptual_hashes

        refuse_taken(args.out)
        recipe = Recipe(args.size, args.filter, args.mode, args.grey)
        others = None
        if args.dedup_against:  # what is wrong with it is said before the hours
            if not Path(args.dedup_against).exists():
                raise UsageError(
                    f'--dedup-against {args.dedup_against} does not exist. Correct it.'
                )
            others = open_images(args.dedup_against, recipe)
            perceptual_hashes(others.images[:1])  # refuses images that are too small
        sources = [Source(path, args.include, args.allow_truncated) for path in args.sources]
        report = pack(sources, args.out, recipe, args.name, args.workers, args.limit, args.labels)
        print_report(report)
        if others is not None:
            try:
                list_others(report.root, args.dedup_against, others)
            except (OSError, UsageError) as error:
                raise UsageError(f'{error} {again} lists its duplicates.') from error


def list_others(root: Path, spec: str, others: PackedDataset) -> None:
    """Write a list of the images that do not occur in another set."""
    from mmdfkd.datasets import ImagePool
    from mmdfkd.datasets.packing import without_duplicates, write_keep

    pool = ImagePool(root)
    kept, facts = without_duplicates(pool, spec, others=others)
    write_keep(root / 'keep.npy', kept, {'pool': pool.meta['sha256'], **facts})
    print(
        f'{facts["exact"]:,} exact and {facts["perceptual"]:,} perceptual duplicates of '
        f'the {facts["images_there"]:,} images of {spec}; '
        "ImagePool(keep='keep.npy') leaves them out, keep.json lists them"
    )


def print_report(report: PackReport) -> None:
    """Say what became of the images, loudly where most were lost."""
    resumed = f' ({report.resumed:,} of them before the interruption)' if report.resumed else ''
    print(f'{report.root}: {report.images:,} images{resumed}')
    if report.ignored:
        kinds = ', '.join(f'{count:,} {kind}' for kind, count in report.ignored.most_common(8))
        print(f'passed over, being no images: {kinds}')
    for cut in report.cuts:
        print(f'CUT SHORT: {cut}')
    if not report.skipped:
        return
    reasons = ', '.join(f'{count:,} x {reason}' for reason, count in report.reasons.most_common(5))
    print(f'skipped: {report.skipped:,} ({reasons}); {report.root / "skipped.txt"} lists them')
    if report.skipped > report.images:
        print(
            f'WARNING: MORE THAN HALF OF THE IMAGES COULD NOT BE READ: {report.skipped:,} of '
            f'{report.skipped + report.images:,}. Check the source before you train on the rest.',
            file=sys.stderr,
        )


if __name__ == '__main__':
    main()
