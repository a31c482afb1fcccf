# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Make MNIST-M: ``python tools/dataset_converters/make_mnistm.py MNIST PHOTOS --out POOL``.

Each digit is blended with a random patch of a random photograph (Ganin et al. 2016); the paper
takes the photographs of BSDS500. The digits' classes are kept aside in ``labels.npy``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdfkd.utils import UsageError
from mmdfkd.utils.reporting import report_errors


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Blend digits with patches of photographs')
    parser.add_argument('digits', type=Path, help='folder or archive of MNIST, or a pool of digits')
    parser.add_argument('photos', type=Path, help='folder or archive of photographs at full size')
    parser.add_argument('--out', required=True, type=Path, metavar='POOL', help='folder to make')
    parser.add_argument('--split', choices=('train', 'test'), help='of MNIST; default train')
    parser.add_argument('--size', type=int, help='side MNIST is enlarged to; default 32 pixels')
    parser.add_argument('--grey', action='store_true', help='one channel instead of three')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of patches')
    parser.add_argument('--name', help='name of the pool; default that of its folder')
    return parser.parse_args(arguments)


def main() -> None:
    """Make it."""
    args = parse_args()
    with report_errors():
        from mmdfkd.datasets import ImagePool, write_pool
        from mmdfkd.datasets.image_pool import is_pool, refuse_taken
        from mmdfkd.datasets.packing import Source, blend_digits
        from mmdfkd.registry import DATASETS

        refuse_taken(args.out)
        if is_pool(args.digits):
            if args.split is not None or args.size is not None:
                raise UsageError(
                    f'--split and --size are for MNIST itself; {args.digits} is a pool, which is '
                    'taken as it is. Leave them out.'
                )
            digits = ImagePool(args.digits)
            labels = digits.extra('labels')
        else:
            config = dict(type='MNIST', data_root=str(args.digits), split=args.split or 'train')
            size = 32 if args.size is None else args.size
            digits = DATASETS.build({**config, 'image_size': size})
            labels = digits.labels
        images = blend_digits(digits.images, Source(args.photos), args.seed, args.grey)
        facts = dict(
            created_by='make_mnistm.py',
            digits=str(args.digits),
            photos=str(args.photos),
            seed=args.seed,
        )
        write_pool(args.out, images, args.name or args.out.name, {'labels': labels}, facts)
        print(f'{args.out}: {len(images):,} images')


if __name__ == '__main__':
    main()
