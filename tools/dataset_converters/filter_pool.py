# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""List the images of a pool to use: ``python tools/dataset_converters/filter_pool.py POOL ...``.

Leaves out what also occurs in a validation set, and of each class a teacher sees keeps the images
it is surest of. The pool stays as it is; ``ImagePool(root, keep='keep.npy')`` reads the list.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmdfkd.utils import UsageError
from mmdfkd.utils.reporting import report_errors


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='List the images of a pool to use')
    parser.add_argument('pool', type=Path, help='folder of the pool')
    parser.add_argument(
        '--dedup-against',
        metavar='SET',
        help='leave out what occurs in this pool, config (its val_dataloader) or source of images',
    )
    parser.add_argument(
        '--max-distance',
        type=int,
        metavar='BITS',
        help='in which hashes of duplicates may differ; -1 for equal pixels only; default 6',
    )
    parser.add_argument(
        '--teacher',
        metavar='CHECKPOINT',
        help='student.pth or mmdfkd://<name>; or a config, whose model.teacher it is',
    )
    parser.add_argument(
        '--cap-per-class', type=int, metavar='N', help='most images of a class the teacher sees'
    )
    parser.add_argument(
        '--out', type=Path, help='file to write; default keep.npy in the folder of the pool'
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Filter."""
    args = parse_args()
    with report_errors():
        if (args.teacher is None) != (args.cap_per_class is None):
            raise UsageError('--teacher and --cap-per-class need each other. Give both or none.')
        if args.teacher is None and args.dedup_against is None:
            raise UsageError('Nothing to filter by. Give --dedup-against, or --teacher and a cap.')
        if args.max_distance is not None and args.dedup_against is None:
            raise UsageError('--max-distance is of no use without --dedup-against. Give that too.')
        filter_pool(args)


def filter_pool(args: argparse.Namespace) -> None:
    """Write the list and say what was left out."""
    import numpy as np

    from mmdfkd.datasets import ImagePool
    from mmdfkd.datasets.packing import cap_per_class, without_duplicates, write_keep
    from mmdfkd.datasets.packing.dedup import MAX_DISTANCE
    from mmdfkd.datasets.packing.keep import require_free

    out = args.out or args.pool / 'keep.npy'
    require_free(out)
    pool = ImagePool(args.pool)
    kept = np.arange(len(pool))
    facts: dict[str, Any] = dict(pool=pool.meta['sha256'], images=len(pool))
    if args.dedup_against:
        distance = MAX_DISTANCE if args.max_distance is None else args.max_distance
        kept, facts['duplicates'] = without_duplicates(pool, args.dedup_against, distance)
        found = facts['duplicates']
        print(
            f'{found["exact"]:,} exact and {found["perceptual"]:,} perceptual duplicates of the '
            f'{found["images_there"]:,} images of {args.dedup_against}'
        )
    if args.teacher:
        logits = predict(args.teacher, pool)[kept]
        counts = np.bincount(logits.argmax(1), minlength=logits.shape[1])
        kept = kept[cap_per_class(logits, args.cap_per_class)]
        facts['cap'] = dict(teacher=args.teacher, per_class=args.cap_per_class)
        facts['cap']['predicted'] = counts.tolist()
        print(
            f'the teacher sees {counts.min():,} to {counts.max():,} images of a class; '
            f'{(counts > args.cap_per_class).sum()} of {len(counts)} classes are capped'
        )
    write_keep(out, kept, facts)
    print(f'{out}: {len(kept):,} of {len(pool):,} images')


def predict(teacher: str, pool: Any) -> Any:
    """Return the teacher's logits of the pool, (N, K), from the cache where they are there."""
    from mmengine.registry import init_default_scope

    from mmdfkd.engine.prediction import LogitsCache
    from mmdfkd.models.classifiers import build_teacher, load_classifier
    from mmdfkd.models.data_preprocessors import BatchPreprocessor
    from mmdfkd.utils.config_read import load_config
    from mmdfkd.utils.device import choose_device

    device = choose_device()
    if teacher.endswith('.py'):
        cfg = load_config(teacher)
        init_default_scope(cfg.get('default_scope', 'mmdfkd'))
        network = build_teacher(cfg.get('model', {}).get('teacher')).to(device)
    else:
        network = load_classifier(teacher).to(device)
    preprocessor = BatchPreprocessor(network.mean, network.std, input_shape=network.input_shape)
    return LogitsCache().get(network, pool, preprocessor.to(device)).numpy()


if __name__ == '__main__':
    main()
