# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How near methods come to their floors: ``python tools/analysis_tools/benchmark.py [METHOD...]``.

===========  ====================================================================================
step         a training step, complete, through the Runner, against its floor (``floors/``)
profile      where the time of such a step goes: loader, preprocessor, optimisers, each hook
epoch        a whole epoch of KD3, strict and fast, against the arithmetic of its authors
overhead     what the Runner takes for an iteration that does nothing
selection    KD3's selection pass against the forward over resident, normalised images
synthesis    a round of images made out of the teacher, against its floor
evaluation   the Runner's validation against the student's forward over resident images
packing      making a pool of image files, against decoding and resizing them
parts        what surrounds the networks, per image, against plain torch
memory       of the process, over the size of a pool on disk
growth       what is no network, over the size of the pool, the classes, the batch, the images
===========  ====================================================================================

The floor of a step is a plain torch loop on resident tensors that does the forwards and backwards
of the method's formula and the steps of the same optimisers, nothing else. Before any clock starts,
it and the method's step must give the same loss and gradients on one batch, and two rounds of
synthesis the same images.

Everything runs in one process, in alternating blocks; a ratio is the median over pairs of
neighbouring blocks, +- its standard error. Ratios travel to other machines, absolute times do not.
On one CPU thread the clock is the processor time of this process, which other processes leave
alone, but for caches and memory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from benchmark_data import FEWEST_FILES, measure_packing  # these lie beside this file
from floors import FLOORS
from measuring.command import check_least
from measuring.epochs import MODES, PUBLISHED, measure_epochs
from measuring.growth import draw_growth, measure_growth, measure_memory
from measuring.methods import (
    measure_evaluation,
    measure_selection,
    measure_step,
    measure_synthesis,
)
from measuring.overhead import measure_overhead
from measuring.parts import measure_parts
from measuring.profiling import measure_profile
from measuring.runners import PAIRS, find_recipe, has_recipe
from measuring.timing import Clock, machine, print_table
from mmengine.device import utils as device_utils

from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError
from mmdfkd.utils.files import write_json
from mmdfkd.utils.memory import keep_freed_memory
from mmdfkd.utils.reporting import report_errors

TABLES = (
    'step', 'profile', 'overhead', 'selection', 'synthesis', 'evaluation', 'packing', 'parts',
    'epoch', 'memory', 'growth',
)  # fmt: skip
LONG = ('epoch', 'memory', 'growth')


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='How near methods come to their floors')
    parser.add_argument(
        'methods', nargs='*', metavar='METHOD', help=f'any of {", ".join(FLOORS)}; default: all'
    )
    parser.add_argument(
        '--only', nargs='+', choices=TABLES, default=[name for name in TABLES if name not in LONG],
        help=f'default: all but {", ".join(LONG)}',
    )  # fmt: skip
    parser.add_argument('--pair', choices=PAIRS, default='resnet8', help='default: %(default)s')
    parser.add_argument('--batch', type=int, nargs='+', default=[128], help='default: 128')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU; default 1')
    parser.add_argument(
        '--iterations', type=int, default=10, help='steps per block and log line; default 10'
    )
    parser.add_argument('--pairs', type=int, default=9, help='blocks of each kind; default 9')
    parser.add_argument('--images', type=int, default=12_000, help='images of the pool')
    parser.add_argument(
        '--round', type=int, help="steps of a round of synthesis; default: the recipe's"
    )
    parser.add_argument(
        '--modes', nargs='+', choices=[*MODES, PUBLISHED], default=[*MODES, PUBLISHED],
        metavar='MODE', help=f'of epochs, default all: {"; ".join([*MODES, PUBLISHED])}',
    )  # fmt: skip
    parser.add_argument('--files', type=int, default=2000, help='image files to pack; default 2000')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there too')
    parser.add_argument('--figure', metavar='FILE', help='draw the growth there, a PNG')
    args = parser.parse_args(arguments)
    check_least(parser, args, 'iterations', 'pairs', 'images', 'threads', 'batch', 'round')
    check_least(parser, args, 'files', least=FEWEST_FILES)
    if args.figure and ('growth' not in args.only or not args.figure.endswith('.png')):
        parser.error(f'--figure {args.figure}: it draws --only growth, into a file ending in .png')
    return args


def chosen_methods(args: argparse.Namespace) -> list[str]:
    """The methods that are named, or all that have a recipe for the pair.

    Raises:
        UsageError: A name is not known, or has no recipe.
    """
    known = {name.lower(): name for name in FLOORS}
    for name in args.methods:
        if name.lower() not in known:
            raise UsageError(f'METHOD {name} is not known. Give any of {", ".join(FLOORS)}.')
        find_recipe(known[name.lower()], args.pair)
    if args.methods:
        return [known[name.lower()] for name in args.methods]
    return [name for name in FLOORS if has_recipe(name, args.pair)]


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, print tables as they come and return their rows."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda: torch sees no GPU. Use --device cpu.')
    most = max(args.batch) * args.iterations
    if most > args.images:
        raise UsageError(
            f'A block of {args.iterations} steps at --batch {max(args.batch)} takes {most} images, '
            f'--images is {args.images}. Raise --images or lower --iterations.'
        )
    methods = chosen_methods(args)
    device_utils.DEVICE = args.device  # what mmengine asks, also where there is a GPU
    torch.set_num_threads(args.threads)
    if args.device == 'cpu':
        keep_freed_memory()  # as the Runner does
    clock = Clock(args.device)
    result: dict[str, Any] = dict(machine=machine(args, clock))
    for name, fact in result['machine'].items():
        print(f'{name:8} {fact}')

    with tempfile.TemporaryDirectory() as folder:
        for name, title, rows in tables(args, clock, folder, methods):
            printed = print_table(title, rows)
            if printed:
                result[name] = printed
            else:
                print(f'\n{title}: there is none with {", ".join(methods)}.')
    return result


def tables(
    args: argparse.Namespace, clock: Clock, folder: str, methods: list[str]
) -> Iterator[tuple[str, str, Iterable[dict[str, Any]]]]:
    """Name, title and rows of what is asked for; a row is measured when it is asked for."""
    cases = [(method, batch) for method in methods for batch in args.batch]
    makers = [case for case in cases if hasattr(MODELS.get(case[0]), 'synthesize')]
    measured: dict[str, tuple[str, Callable[[], Iterable[dict[str, Any]]]]] = dict(
        step=(
            f'Training step, {args.pair}',
            lambda: (measure_step(args, clock, folder, *case) for case in cases),
        ),
        profile=(
            'Where the time of an iteration goes',
            lambda: (row for case in cases for row in measure_profile(args, clock, folder, *case)),
        ),
        overhead=('The Runner without a step', lambda: measure_overhead(args, clock, folder)),
        selection=(
            f'Selection pass of KD3, {args.images:,} images',
            lambda: measure_selection(args, clock, folder) if 'KD3' in methods else (),
        ),
        synthesis=(
            'Round of synthesis',
            lambda: (measure_synthesis(args, clock, folder, *case) for case in makers),
        ),
        evaluation=(
            'Evaluation',
            lambda: [measure_evaluation(args, clock, folder, methods[0])],
        ),
        packing=('Packing', lambda: measure_packing_rate(args, Path(folder))),
        parts=('Around the networks', lambda: measure_parts(args, clock)),
        epoch=(
            f'Epoch of KD3, {args.pair}, {args.images:,} images',
            lambda: (
                row for batch in args.batch for row in measure_epochs(args, clock, folder, batch)
            ),
        ),
        memory=('Memory, MiB', lambda: in_new_process(measure_memory, folder)),
        growth=('Growth', lambda: measure_growth(args, clock)),
    )
    for name, (title, measure) in measured.items():
        if name in args.only:
            yield name, title, measure()


def in_new_process(function: Callable, *args: Any) -> Any:
    """What a function returns in a process that gives back what it frees; this one keeps it."""
    with ProcessPoolExecutor(1, get_context('spawn')) as process:
        return process.submit(function, *args).result()


def measure_packing_rate(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Images per second of packing JPEG files into a pool, and its ratio to the floor's time."""
    settings = argparse.Namespace(images=None, files=args.files, workers=1, pairs=args.pairs)
    rows = []
    for row in measure_packing(settings, folder):
        count = args.files if '64 x 64' in row.what else args.files // 6
        rows.append(
            {
                'packing': row.what,
                'ours/bare': row.ratio,
                'images/s': count / row.ours,
                'bare images/s': count / row.bare,
            }
        )
    return rows


def main() -> None:
    """Run."""
    args = parse_args()
    with report_errors():
        result = benchmark(args)
        if args.json:
            write_json(args.json, result)
        if args.figure and 'growth' in result:
            draw_growth(args.figure, result['growth'])


if __name__ == '__main__':
    main()
