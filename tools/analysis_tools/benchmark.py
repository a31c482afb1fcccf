# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How near a method's training comes to its floor: ``python tools/analysis_tools/benchmark.py``.

The floor of a step is a plain torch loop on resident tensors that does the forwards and backwards
of the method's formula and the steps of the same optimisers, nothing else (``floors.py``). Before
any clock starts, it and the method's step must give the same loss and gradients on one batch. The
floor of a selection pass is the networks' forward over resident, normalised images.

Everything runs in one process, in alternating blocks; a ratio is the median over pairs of
neighbouring blocks. Ratios travel to other machines, absolute times do not. On one CPU thread the
clock is the processor time of this process, which other processes leave alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from floors import FLOORS, check_floor  # beside this file
from mmengine.device import utils as device_utils
from mmengine.hooks import Hook
from torch import nn

from mmdfkd.datasets import NoisePool
from mmdfkd.datasets.samplers import SelectionSampler
from mmdfkd.engine import DistillRunner
from mmdfkd.engine.hooks import SelectionHook
from mmdfkd.models.data_preprocessors import BatchPreprocessor
from mmdfkd.models.selectors import DynamicSelector
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import load_config
from mmdfkd.utils.files import write_json
from mmdfkd.utils.reporting import report_errors

CONFIGS = Path(__file__).parents[2] / 'configs'
PAIRS = ('lenet5', 'resnet8')


# Clock ----------------------------------------------------------------------------------------


class Clock:
    """Seconds, read when the device has finished what it was given."""

    def __init__(self, device: str) -> None:
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
        alone = device == 'cpu' and torch.get_num_threads() == 1
        self.read = time.process_time if alone else time.perf_counter
        self.name = 'processor time' if alone else 'wall clock'

    def __call__(self) -> float:
        """Now."""
        self.synchronize()
        return self.read()

    def time(self, action: Callable[[], Any]) -> float:
        """Seconds that ``action`` takes."""
        start = self()
        action()
        return self() - start


def compare(clock: Clock, pairs: int, **actions: Callable[[], Any]) -> dict[str, list[float]]:
    """Time actions in turn, ``pairs`` times each, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(pairs + 1):
        for name, action in actions.items():
            times[name].append(clock.time(action))
    return {name: values[1:] for name, values in times.items()}


def median(values: list[float]) -> float:
    """The middle one."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def ratio(ours: list[float], bare: list[float]) -> float:
    """Median of paired ratios."""
    return median([a / b for a, b in zip(ours, bare, strict=True)])


class InterleaveHook(Hook):
    """Stop a Runner's clock after every block of iterations and let its rivals run a block.

    Of the Runner everything is on its clock: loader, preprocessor, every hook, the log lines.
    """

    priority = 'LOWEST'

    def __init__(
        self,
        clock: Clock,
        block: int,
        rivals: dict[str, Callable[[], None]],
        prepare: Callable[[], None],
    ) -> None:
        self.clock = clock
        self.block = block
        self.rivals = rivals
        self.prepare = prepare
        self.times: dict[str, list[float]] = {name: [] for name in ('runner', *rivals)}

    def before_train_epoch(self, runner: Any) -> None:
        """Start."""
        self.started = self.clock()

    def after_train_iter(self, runner: Any, batch_idx: int, **ignored: Any) -> None:
        """Let the others run, then go on."""
        if (batch_idx + 1) % self.block == 0:
            self.times['runner'].append(self.clock() - self.started)
            self.prepare()
            for name, rival in self.rivals.items():
                self.times[name].append(self.clock.time(rival))
            self.started = self.clock()


# Measurements ---------------------------------------------------------------------------------


def build_runner(args: argparse.Namespace, folder: str, batch: int, blocks: int) -> DistillRunner:
    """The real runner of the pair's config, long enough for some blocks; it logs to a file.

    Its pool is cut to a multiple of the batch, so that all batches are of one size.
    """
    algorithm = args.method.lower()
    stem = f'{algorithm}_{args.pair}_{args.pair}-half_1xb*_digits'
    path = next((CONFIGS / algorithm).glob(f'{stem}.py'), None)
    if path is None:
        raise UsageError(
            f'configs/{algorithm} has no {stem}.py: there is no recipe of {args.method} for '
            f'--pair {args.pair}. Choose another pair.'
        )
    cfg = load_config(path)
    cfg.launcher = 'none'
    cfg.work_dir = tempfile.mkdtemp(dir=folder)
    cfg.experiment_name = Path(cfg.work_dir).name  # mmengine shares objects between namesakes
    loader, teacher = cfg.train_dataloader, cfg.model.teacher
    steps = args.images // batch
    loader.batch_size = batch
    if loader.dataset.type == 'LatentDataset':
        loader.dataset.length = steps * batch
    else:
        loader.dataset.num_images = args.images
        loader.dataset = dict(
            type='QuickDataset',
            dataset=loader.dataset,
            num_images=steps * batch,
            shape=teacher.input_shape,
            num_classes=teacher.head.num_classes,
        )
    cfg.train_cfg.max_epochs = -(-blocks // (steps // args.iterations))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = None
    for name in ('progress', 'figures', 'samples'):  # a bar would move while others are timed
        cfg.default_hooks.pop(name, None)
    for name in ('runtime_info', 'timer', 'logger'):
        cfg.default_hooks[name].interval = args.iterations
    with contextlib.redirect_stdout(io.StringIO()):  # the logger goes on writing there
        return DistillRunner.from_cfg(cfg)


def measure_step(
    args: argparse.Namespace, clock: Clock, folder: str, batch: int
) -> dict[str, float]:
    """One training step: through the Runner, called directly, and its floor.

    The floor comes without and with the data road: gathering, augmenting and normalising batches.
    """
    runner = build_runner(args, folder, batch, blocks=args.pairs + 1)
    model = runner.model
    model.selector = None  # the whole pool
    pool = runner.train_dataloader.dataset
    order = torch.randperm(len(pool))[: 8 * batch].split(batch)
    raw = [to_device(pool.__getitems__(part), args.device) for part in order]
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    floor = FLOORS[args.method](model, runner.optim_wrapper)
    # Times depend on the images, too: all get the same views.
    prepared = [floor.prepare(dict(part)) for part in raw]
    check_floor(model, floor, raw[0])

    def bare() -> None:
        for i in range(args.iterations):
            floor.step(prepared[i % len(prepared)])

    def bare_data() -> None:
        for i in range(args.iterations):
            floor.step(floor.prepare(pool.__getitems__(order[i % len(order)])))

    def train_step() -> None:
        for i in range(args.iterations):
            model.train_step(dict(raw[i % len(raw)]), runner.optim_wrapper)

    rivals = dict(bare=bare, bare_data=bare_data, train_step=train_step)
    prepare = functools.partial(floor.follow, model)
    hook = InterleaveHook(clock, args.iterations, rivals, prepare)
    runner.register_hook(hook)
    runner.train()
    times = {name: values[1 : args.pairs + 1] for name, values in hook.times.items()}
    ms = {name: 1e3 * median(values) / args.iterations for name, values in times.items()}
    return {
        'batch': batch,
        'Runner/bare': ratio(times['runner'], times['bare']),
        'Runner/(bare+data)': ratio(times['runner'], times['bare_data']),
        'train_step/bare': ratio(times['train_step'], times['bare']),
        'Runner/train_step': ratio(times['runner'], times['train_step']),
        'bare ms': ms['bare'],
        'train_step ms': ms['train_step'],
        'Runner ms': ms['runner'],
        'Runner us/image': 1e3 * ms['runner'] / batch,
    }


def to_device(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """A batch of tensors on the device."""
    return {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def measure_selection(
    args: argparse.Namespace, clock: Clock, folder: str
) -> list[dict[str, float | str]]:
    """One selection pass: with the teacher's logits at hand, and the first one without."""
    runner = build_runner(args, folder, args.batch[0], blocks=1)
    model, pool = runner.model.eval(), runner.train_dataloader.dataset
    model.selector.min_selected = 1
    images = model.data_preprocessor(pool.__getitems__(range(len(pool))))['inputs']
    again = SelectionHook()
    again.cache.folder = Path(folder)

    def first() -> None:
        hook = SelectionHook()
        hook.cache.folder = Path(tempfile.mkdtemp(dir=folder))
        hook.before_train_epoch(runner)

    def forward(network: nn.Module) -> None:
        for part in images.split(again.batch_size):
            network(part)

    times = compare(
        clock,
        args.pairs,
        ours=lambda: again.before_train_epoch(runner),
        bare=lambda: forward(model.student),
        ours_first=first,
        bare_first=lambda: (forward(model.teacher), forward(model.student)),
    )
    us = {name: 1e6 * median(values) / len(pool) for name, values in times.items()}
    return [
        {
            'pass': name,
            'ours/bare': ratio(times[f'ours{key}'], times[f'bare{key}']),
            'bare us/image': us[f'bare{key}'],
            'ours us/image': us[f'ours{key}'],
        }
        for name, key in (('student, cached teacher', ''), ('student and teacher', '_first'))
    ]


def measure_parts(args: argparse.Namespace, clock: Clock) -> list[dict[str, float | str]]:
    """What surrounds the networks, per image."""
    batch, pool = 128, NoisePool(4096, channels=3)
    order = torch.randperm(len(pool)).split(batch)
    batches = [pool.__getitems__(part) for part in order]
    teacher, student = 5 * torch.randn(2, 20_000, 10)
    selector, sampler = DynamicSelector(), SelectionSampler(range(len(teacher)), seed=0)

    def select() -> None:
        chosen = selector(teacher_logits=teacher, student_logits=student, epoch=1, max_epochs=2)
        sampler.select(chosen.indices, batch)

    def gather() -> None:
        for part in order:
            pool.__getitems__(part)

    def road(*augment: dict) -> Callable[[], None]:
        preprocessor = BatchPreprocessor([120.0] * 3, [60.0] * 3, augment).to(args.device)

        def run() -> None:
            for part in batches:
                preprocessor(part, training=True)

        return run

    crop = dict(type='BatchRandomCrop', size=32, padding=4)
    resized_crop = dict(type='BatchRandomResizedCrop', size=32)
    flip = dict(type='BatchRandomFlip')
    actions = {
        'combine + threshold + index': select,
        'gather a shuffled batch': gather,
        'normalise': road(),
        'crop + flip + normalise': road(crop, flip),
        'resized crop + flip + normalise': road(resized_crop, flip),
    }
    times = compare(clock, args.pairs, **actions)
    counts = dict.fromkeys(actions, len(pool)) | {'combine + threshold + index': len(teacher)}
    return [
        {'3x32x32 images, 10 classes': name, 'us/image': 1e6 * median(times[name]) / counts[name]}
        for name in actions
    ]


# Report ---------------------------------------------------------------------------------------


def machine(args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """What the numbers were measured on, and with which command."""
    device = torch.cuda.get_device_name() if args.device == 'cuda' else processor()
    allocator = [f'{k}={v}' for k, v in os.environ.items() if k.startswith(('MALLOC_', 'LD_PRE'))]
    return dict(
        command=shlex.join([*sorted(allocator), 'python', *sys.argv]),
        device=device,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        clock=clock.name,
        load=' '.join(f'{load:.1f}' for load in getattr(os, 'getloadavg', tuple)()),
    )


def processor() -> str:
    """The CPU's name where the system tells it."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0] if names else platform.processor()}, {os.cpu_count()} cores'


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys below their keys."""
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f'\n{title}', flush=True)
    for line in lines:
        print('  '.join(f'{text:>{width}}' for text, width in zip(line, widths, strict=True)))


def cell(value: Any) -> str:
    """Numbers with as many digits as they mean something with."""
    if not isinstance(value, float):
        return str(value)
    return f'{value:.3f}' if value < 10 else f'{value:.1f}'


# Command --------------------------------------------------------------------------------------


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='How near a training step and a selection pass come to their floors'
    )
    parser.add_argument('--method', choices=sorted(FLOORS), default='KD3')
    parser.add_argument('--pair', choices=PAIRS, default='lenet5', help='default: %(default)s')
    parser.add_argument('--batch', type=int, nargs='+', default=[64, 128], help='batch sizes')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU; default 1')
    parser.add_argument(
        '--iterations', type=int, default=10, help='steps per block and log line; default 10'
    )
    parser.add_argument('--pairs', type=int, default=20, help='blocks of each kind; default 20')
    parser.add_argument('--images', type=int, default=12_000, help='images of the pool')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there too')
    return parser.parse_args(arguments)


def benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print tables as they come and return their rows."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda: torch sees no GPU. Use --device cpu.')
    most = max(args.batch) * args.iterations
    if most > args.images:
        raise UsageError(
            f'A block of {args.iterations} steps at --batch {max(args.batch)} takes {most} images, '
            f'--images is {args.images}. Raise --images or lower --iterations.'
        )
    device_utils.DEVICE = args.device  # what mmengine asks, also where there is a GPU
    torch.set_num_threads(args.threads)
    clock = Clock(args.device)
    result: dict[str, Any] = dict(machine=machine(args, clock))
    for name, fact in result['machine'].items():
        print(f'{name:8} {fact}')
    with tempfile.TemporaryDirectory() as folder:
        result['step'] = [measure_step(args, clock, folder, batch) for batch in args.batch]
        print_table(f'Training step, {args.method} {args.pair}', result['step'])
        if args.method == 'KD3':
            result['selection'] = measure_selection(args, clock, folder)
            print_table(f'Selection pass, {args.images:,} images', result['selection'])
    result['parts'] = measure_parts(args, clock)
    print_table('Around the networks', result['parts'])
    return result


def main() -> None:
    """Run."""
    args = parse_args()
    with report_errors():
        result = benchmark(args)
        if args.json:
            write_json(args.json, result)


if __name__ == '__main__':
    main()
