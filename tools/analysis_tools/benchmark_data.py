# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How near the data road comes to its floors: ``python tools/analysis_tools/benchmark_data.py``.

===========================  ======================================================================
packing images into a pool   against decoding and resizing the same files in as many processes
a batch of 1,024 images      against numpy's fancy index on the same memory map
augmenting that batch        against one torchvision call that treats all images alike
peak memory of packing       of few images and of many
===========================  ======================================================================

Both sides of a ratio run in turn, in one process; a ratio is the median over neighbouring runs of
processor time, which other processes leave alone. Ratios travel to other machines, times do not.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring.command import check_least  # beside this file
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from mmdfkd.datasets import (
    BatchRandomCrop,
    BatchRandomFlip,
    BatchRandomResizedCrop,
    ImagePool,
    write_pool,
)
from mmdfkd.datasets.packing import Recipe, Source, pack
from mmdfkd.utils.files import write_json
from mmdfkd.utils.reporting import report_errors

FEWEST_FILES = 6  #: There are six times as many small ones as large ones.


class Row(NamedTuple):
    """One comparison: medians of processor seconds, of their ratio and of that of wall seconds."""

    what: str
    floor: str
    ours: float
    bare: float
    ratio: float
    wall_ratio: float
    goal: float


def compare(what: str, floor: str, goal: float, ours: Callable, bare: Callable, pairs: int) -> Row:
    """Runs two functions in turn and compares what they cost."""
    ours(), bare()  # warm up
    times = [(*cost(ours), *cost(bare)) for _ in range(pairs)]
    cpu = statistics.median(row[0] / row[2] for row in times)
    wall = statistics.median(row[1] / row[3] for row in times)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Row(what, floor, medians[0], medians[2], cpu, wall, goal)


def cost(function: Callable) -> tuple[float, float]:
    """Seconds of processor time, those of finished child processes included, and of the wall."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

    def spent() -> float:
        usages = [resource.getrusage(kind) for kind in kinds]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before, start = spent(), time.perf_counter()
    function()
    return spent() - before, time.perf_counter() - start


# Packing ------------------------------------------------------------------------------------


def measure_packing(args: argparse.Namespace, scratch: Path) -> list[Row]:
    """Pack small and large JPEG files, or those of a folder."""
    folders = {'your images': args.images}
    if args.images is None:
        folders = {'64 x 64 JPEG': scratch / 'small', '500 x 375 JPEG': scratch / 'large'}
        write_jpegs(scratch / 'small', args.files, (64, 64))
        write_jpegs(scratch / 'large', args.files // 6, (500, 375))
    rows, out = [], scratch / 'packed'
    for name, folder in folders.items():

        def ours(folder: Path = folder) -> None:
            pack([Source(folder)], out, Recipe(32), workers=args.workers)
            shutil.rmtree(out)

        def bare(folder: Path = folder) -> None:
            kinds = Image.registered_extensions()
            paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in kinds)
            blocks = [paths[first : first + 256] for first in range(0, len(paths), 256)]
            with ProcessPoolExecutor(args.workers, get_context('fork')) as workers:
                list(workers.map(decode_and_resize, blocks))

        what = f'pack {name}, {args.workers} workers'
        rows.append(compare(what, 'decode and resize', 1.15, ours, bare, args.pairs))
    return rows


def decode_and_resize(paths: list[Path]) -> None:
    """The floor of packing, which throws its work away."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert('RGB').resize((32, 32), Image.Resampling.BOX))


def write_jpegs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Make pictures with as much detail as photographs."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for k in range(count):
        small = random.integers(0, 256, (size[1] // 6, size[0] // 6, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / f'{k:06d}.jpg', quality=90)


def measure_memory(args: argparse.Namespace, scratch: Path) -> list[tuple[int, float, float]]:
    """Peak MiB of the packing process and of its largest worker, by number of images."""
    folder = scratch / 'many'
    folder.mkdir()
    write_jpegs(scratch / 'one', 1, (64, 64))
    image = (scratch / 'one' / '000000.jpg').read_bytes()
    peaks = []
    made = 0
    for count in sorted(args.memory):
        for number in range(made, count):
            part = folder / f'{number // 1000:04d}'
            first, path = part / '000.jpg', part / f'{number % 1000:03d}.jpg'
            if path == first:
                part.mkdir()
                path.write_bytes(image)
            else:
                os.link(first, path)
        made = count
        code = (
            'import re, resource\n'
            'from mmdfkd.datasets.packing import Recipe, Source, pack\n'
            f'pack([Source({str(folder)!r})], {str(scratch / "m")!r}, Recipe(32), '
            f'workers={args.workers})\n'
            # ru_maxrss would begin with the memory of the process that started this one
            "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
            'print(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n'
        )
        found = subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True, check=True
        )
        shutil.rmtree(scratch / 'm')
        own, largest = (int(word) / 1024 for word in found.stdout.split()[-2:])
        peaks.append((count, own, largest))
    return peaks


# Batches --------------------------------------------------------------------------------------


def measure_batches(args: argparse.Namespace, scratch: Path) -> list[Row]:
    """Gather and augment batches of 1,024 from a pool of 100,000 images of 32 x 32."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100_000, 32, 32, 3), dtype=np.uint8)
    pool = ImagePool(write_pool(scratch / 'pool', images, 'pool'))
    del images
    plain = np.load(scratch / 'pool' / 'images.npy', mmap_mode='r').view(np.ndarray)
    batches = random.permutation(len(pool))[: 32 * 1024].reshape(32, 1024)

    def each(function: Callable) -> Callable:
        return lambda: [function(batch) for batch in batches]

    rows = [
        compare(
            'batch of 1,024 (x 32)',
            'numpy fancy index',
            1.5,
            each(lambda batch: pool.__getitems__(batch.tolist())),
            each(lambda batch: plain[batch]),
            args.pairs,
        )
    ]
    inputs = pool.__getitems__(batches[0])['inputs']
    pad, flip, resized = BatchRandomCrop(32, 4), BatchRandomFlip(), BatchRandomResizedCrop(32)
    for what, ours, theirs in (
        (
            'crop and flip it',
            lambda images: flip(pad(images)),
            v2.Compose([v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()]),
        ),
        (
            'resized crop and flip of it',
            lambda images: flip(resized(images)),
            v2.Compose([v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip()]),
        ),
    ):
        rows.append(
            compare(
                f'{what} (x 10)',
                'torchvision v2, one draw for all',
                2.0,
                lambda ours=ours: [ours(inputs) for _ in range(10)],
                lambda theirs=theirs: [theirs(inputs) for _ in range(10)],
                args.pairs,
            )
        )
    return rows


# Command ------------------------------------------------------------------------------------


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='How near packing, gathering and augmenting come to their floors'
    )
    parser.add_argument('--images', type=Path, metavar='FOLDER', help='default: generated JPEGs')
    parser.add_argument('--files', type=int, default=4000, help='how many of them; default 4000')
    parser.add_argument('--workers', type=int, default=2, help='processes; default 2')
    parser.add_argument('--pairs', type=int, default=5, help='runs of each side; default 5')
    parser.add_argument(
        '--memory',
        type=int,
        nargs='*',
        default=[10_000, 50_000],
        metavar='N',
        help='pack so many images and print the peak memory; default 10000 50000',
    )
    parser.add_argument('--json', metavar='FILE', help='write the numbers there too')
    args = parser.parse_args(arguments)
    check_least(parser, args, 'workers', 'pairs', 'memory')
    check_least(parser, args, 'files', least=FEWEST_FILES)
    return args


def main() -> None:
    """Run."""
    args = parse_args()
    torch.set_num_threads(1)
    with report_errors(), tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        rows = measure_packing(args, scratch) + measure_batches(args, scratch)
        peaks = measure_memory(args, scratch)
    table = Table('what', 'floor', 'ours s', 'floor s', 'ratio', 'wall ratio', 'goal')
    for row in rows:
        times = (f'{row.ours:.3f}', f'{row.bare:.3f}', f'{row.ratio:.2f}', f'{row.wall_ratio:.2f}')
        table.add_row(row.what, row.floor, *times, f'{row.goal:.2f}')
    Console().print(table)
    for count, own, largest in peaks:
        print(f'packing {count:,} images: {own:.0f} MiB, largest worker {largest:.0f} MiB')
    if args.json:
        write_json(args.json, dict(rows=[row._asdict() for row in rows], peaks=peaks))


if __name__ == '__main__':
    main()
