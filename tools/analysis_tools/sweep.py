# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Run configs over values and seeds: ``python tools/analysis_tools/sweep.py CONFIG --set KEY=A,B``.

Every run is a process of ``tools/train.py`` with a folder of its own, whose name tells config,
values and seed and ends in a hash of all that is trained: the resolved config and the teacher's
file. So a finished run is never repeated, an interrupted one continues, and another recipe is
another run. In the end there are ``table.md``, ``table.csv`` and pictures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table

from mmdfkd.utils import UsageError
from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.files import atomic_path, try_lock
from mmdfkd.utils.progress import progress_bar
from mmdfkd.utils.reporting import report_errors
from mmdfkd.utils.train_process import TrainProcess, recipe_hash, side_by_side
from mmdfkd.visualization.comparison import duration
from mmdfkd.visualization.records import (
    curve_of,
    read_history,
    read_summary,
    the_teacher,
    unit_of,
)
from mmdfkd.visualization.sweep import summarise

TRAIN = Path(__file__).absolute().parents[1] / 'train.py'
KEY = 'accuracy/top1'  # of what is drawn


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Run configs over values of their keys and seeds')
    parser.add_argument('configs', nargs='+', type=Path, metavar='CONFIG', help='config files')
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        metavar='KEY=A,B,...',
        help='values of a config key; of several keys every combination is run',
    )
    parser.add_argument('--seed', type=int, nargs='+', default=[0], help='default 0')
    parser.add_argument(
        '--work-dir', type=Path, help='where everything goes; default work_dirs/sweep-<config stem>'
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at once; default 1')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='the same for every run'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--quick', action='store_true', help='toy-sized runs of seconds, to see that it works'
    )
    parser.add_argument('--title', help='heading of the pictures')
    args = parser.parse_args(arguments)
    args.seed = list(dict.fromkeys(args.seed))
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs}: give 1 or more')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs', f'sweep-{args.configs[0].stem}')
    return args


# What to run ------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One row of the table.

    Attributes:
        config: Its config file.
        values: The text of the value of each key.
        with_config: Whether its name needs that of the config to tell it from other rows.
    """

    config: Path
    values: dict[str, str]
    with_config: bool

    @property
    def name(self) -> str:
        """What tells it from other rows: ``loss_weight=0.1, norm=linear``."""
        values = [f'{key}={value}' for key, value in self.short_values().items()]
        return ', '.join([self.config.stem] * self.with_config + values)

    def short_values(self) -> dict[str, str]:
        """The values by the last word of their key, where that is enough."""
        words = [key.rpartition('.')[2] for key in self.values]
        enough = len(set(words)) == len(words)
        return dict(zip(words if enough else self.values, self.values.values(), strict=True))


class Run(TrainProcess):
    """A setting with a seed, and what its process leaves.

    Args:
        setting: What it trains.
        seed: Its seed.
        args: The command line.
        digest: Hash of the recipe.
        epochs: How long it is, ``None`` where it counts in iterations.
    """

    def __init__(
        self, setting: Setting, seed: int, args: argparse.Namespace, digest: str, epochs: int | None
    ) -> None:
        values = [f'{key}={value}' for key, value in setting.short_values().items()]
        name = '-'.join([setting.config.stem, *values, f'seed{seed}', digest])
        # mmengine's folders and a checkpoint's name come after it, and 255 bytes are a limit.
        name = re.sub(r'[^\w.=+-]+', '_', name)[-150:]
        options = [*args.cfg_options, *(f'{k}={v}' for k, v in setting.values.items())]
        more = ['--amp'] * args.amp + (['--cfg-options', *options] if options else [])
        work_dir = args.work_dir / 'runs' / name
        super().__init__(TRAIN, setting.config, seed, work_dir, args.quick, *more)
        self.setting, self.epochs = setting, 2 if args.quick else epochs

    def __str__(self) -> str:
        return f'{self.setting.name}, seed {self.seed}'

    @property
    def summary(self) -> dict[str, Any]:
        """What it recorded so far."""
        return read_summary(self.work_dir)

    @property
    def finished(self) -> bool:
        """Whether there is an accuracy of this very recipe."""
        summary = self.summary
        return summary.get('finished', False) and summary['student_accuracy_last'] is not None

    def start(self, slot: int = 0) -> None:
        """Train unless another process does."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open('a') as log:
            if not try_lock(log):
                self.problem = 'another process is training it already'
                return
            log.truncate(0)
            self.launch(log, **environment(slot))

    def poll(self) -> bool:
        """Whether it has ended; :attr:`problem` says if badly."""
        ended = super().poll()
        if ended and not self.problem and not self.finished:
            self.problem = f'it ended without an accuracy. Its log is {self.log}.'
        return ended


def plan(args: argparse.Namespace) -> list[Run]:
    """List all runs, having checked every setting.

    Raises:
        UsageError: A config, a key or a teacher's file is wrong.
    """
    keys = [split_values(text) for text in args.set]
    swept = [key for key, _ in keys]
    if 'randomness.seed' in [*swept, *(option.partition('=')[0] for option in args.cfg_options)]:
        raise UsageError('randomness.seed is what --seed sets. Give the seeds there.')
    if len(set(swept)) < len(swept):
        raise UsageError(f'--set names a key twice: {", ".join(swept)}. Give all values at once.')
    runs = []
    configs = list(dict.fromkeys(args.configs))
    twice = [stem for stem, count in Counter(path.stem for path in configs).items() if count > 1]
    if twice:
        raise UsageError(
            f'Several configs are called {twice[0]}, and a table names its rows by that. Rename '
            'all but one.'
        )
    for config in configs:
        for values in itertools.product(*(values for _, values in keys)):
            options = [f'{key}={value}' for key, value in zip(swept, values, strict=True)]
            with_config = len(configs) > 1 or not swept
            setting = Setting(config, dict(zip(swept, values, strict=True)), with_config)
            cfg = load_config(config, parsed([*args.cfg_options, *options]))
            check_config(cfg)
            if cfg.get('val_dataloader') is None:
                raise UsageError(f'{config} has no val_dataloader, hence no accuracy. Add one.')
            digest = recipe_hash(cfg, teacher_of(cfg, args.quick) + 'amp' * args.amp)
            epochs = cfg.train_cfg.get('max_epochs')
            runs += [Run(setting, seed, args, digest, epochs) for seed in args.seed]
    return runs


def split_values(text: str) -> tuple[str, list[str]]:
    """Split ``KEY=A,B,...`` at the commas outside of brackets and quotes.

    Raises:
        UsageError: There is no key, or no value.
    """
    key, _, rest = text.partition('=')
    pieces = re.findall(r'(?:[^,\[({"\']|\[[^]]*\]|\([^)]*\)|\{[^}]*\}|"[^"]*"|\'[^\']*\')+', rest)
    if not key or ','.join(pieces) != rest or not pieces:
        raise UsageError(
            f'--set {text} is not understood. Give a key and its values with commas between them, '
            'such as --set model.selector.threshold=0.9,0.95.'
        )
    distinct: dict[float | str, str] = {}
    for piece in pieces:
        distinct.setdefault(number(piece), piece)  # 1 and 1.0 would be the same run twice
    return key, list(distinct.values())


def number(text: str) -> float | str:
    """What a text says as a number, else itself."""
    try:
        return float(text)
    except ValueError:
        return text


def parsed(options: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts as ``--cfg-options`` does."""
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    for option in options:
        if '=' not in option:
            raise UsageError(f'--cfg-options {option} has no value. Write KEY=VALUE.')
    return parser.parse_args(['--cfg-options', *options] if options else []).cfg_options or {}


def teacher_of(cfg: Any, quick: bool) -> str:
    """Hash of the file of a config's teacher; a toy-sized run does without one."""
    from mmdfkd.models.classifiers import resolve_checkpoint

    checkpoint = (cfg.model.get('teacher') or {}).get('checkpoint')
    if checkpoint is None:
        return ''
    try:
        return file_hash(resolve_checkpoint(checkpoint))
    except UsageError:
        if quick:
            return ''
        raise


@lru_cache
def file_hash(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# Running ----------------------------------------------------------------------------------------


def environment(slot: int) -> dict[str, str]:
    """One thread, unless the user says otherwise; a GPU of its own where there are several."""
    import torch

    found = {'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1')}
    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(map(str, range(count))))
        found['CUDA_VISIBLE_DEVICES'] = visible.split(',')[slot % count]
    return found


def run_all(runs: Sequence[Run], jobs: int, console: Console) -> None:
    """Train what is not finished; a run that fails leaves the others alone."""
    waiting = [run for run in runs if not run.finished]
    done = len(runs) - len(waiting)
    if done:
        console.print(f'{done} of {len(runs)} runs were finished before.')
    tasks: dict[Run, TaskID] = {}
    with progress_bar() as bar, closing(side_by_side(waiting, jobs)) as running:
        whole = bar.add_task('All runs', total=len(runs), completed=done)
        for run, ended in running:
            if run not in tasks:
                tasks[run] = bar.add_task(escape(str(run)), total=run.epochs)
            bar.update(tasks[run], completed=run.summary.get('epoch'))
            if ended:
                bar.remove_task(tasks[run])
                bar.advance(whole)
                done += 1
                said = run.problem and f'FAILED: {run.problem}'
                text = f'{done}/{len(runs)}  {run}: {said or outcome(run)}'
                console.print(text, markup=False, soft_wrap=True)


def outcome(run: Run) -> str:
    """What became of a finished run."""
    summary = run.summary
    return f'{summary["student_accuracy_last"]:.2f} % after {duration(summary["seconds"])}'


# What came of it --------------------------------------------------------------------------------


class Row(NamedTuple):
    """A setting and its finished runs by seed."""

    setting: Setting
    runs: dict[int, Run]

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy in percent after the last epoch, by seed."""
        return {seed: run.summary['student_accuracy_last'] for seed, run in self.runs.items()}

    @property
    def histories(self) -> list[list[dict[str, Any]]]:
        """What each run recorded."""
        return [read_history(run.work_dir) for run in self.runs.values()]

    def cells(self) -> list[str]:
        """The row as people read it."""
        text = '–'
        if self.runs:
            _, centre, spread = summarise(list(self.accuracies.values()))
            text = f'{centre:.2f}' if spread is None else f'{centre:.2f} ± {spread:.2f}'
        return [self.setting.config.stem, *self.setting.values.values(), text, str(len(self.runs))]


def gather(runs: Sequence[Run]) -> list[Row]:
    """Sort finished runs by setting."""
    rows: list[Row] = []
    for run in runs:
        if not rows or rows[-1].setting != run.setting:
            rows.append(Row(run.setting, {}))
        if run.finished:
            rows[-1].runs[run.seed] = run
    return rows


def write_tables(rows: Sequence[Row], seeds: Sequence[int], work_dir: Path) -> list[Path]:
    """Write ``table.md`` for people and ``table.csv``, with every run, for programs."""
    keys = list(rows[0].setting.values)
    lines = [['config', *keys, 'accuracy', 'seeds'], ['---'] * (1 + len(keys)) + ['---:'] * 2]
    lines += [row.cells() for row in rows]
    paths = [work_dir / 'table.md', work_dir / 'table.csv']
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(
            'Accuracy after the last epoch in percent: mean ± sample standard deviation over '
            'seeds.\n\n' + ''.join(f'| {" | ".join(line)} |\n' for line in lines),
            encoding='utf-8',
        )
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        writer = csv.writer(file)
        numbers = ['mean', 'std', 'n', *(f'seed {seed}' for seed in seeds), 'seconds']
        writer.writerow(['config', *keys, *numbers])
        for row in rows:
            found = row.accuracies
            _, centre, spread = summarise(list(found.values())) if found else (None, None, None)
            seconds = [run.summary['seconds'] for run in row.runs.values()]
            writer.writerow(
                [row.setting.config, *row.setting.values.values(), centre, spread, len(found)]
                + [found.get(seed) for seed in seeds]
                + [sum(seconds) / len(seconds) if seconds else None]
            )
    return paths


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print the rows."""
    table = Table()
    for heading in ('config', *rows[0].setting.values):
        table.add_column(heading, overflow='fold')
    for heading in ('accuracy', 'seeds'):
        table.add_column(heading, justify='right')
    for row in rows:
        table.add_row(*map(escape, row.cells()))  # a list looks like rich's markup
    console.print(table)


def draw(rows: Sequence[Row], work_dir: Path, title: str | None) -> list[Path]:
    """Draw accuracies over values, or a row for each setting; and the means by epoch."""
    from mmdfkd.visualization import plot_settings, plot_sweep, plot_values

    rows = [row for row in rows if row.runs]
    summaries = [run.summary for row in rows for run in row.runs.values()]
    teacher = the_teacher(summaries)
    seeds = max(len(row.runs) for row in rows)
    what = f'mean and standard deviation of {seeds} seeds' if seeds > 1 else 'one run each'
    sets = ', '.join(dict.fromkeys(summary['dataset'] for summary in summaries))
    texts = {'note': f'Accuracy on {sets} in percent, last epoch: {what}.'}
    texts |= {'title': title} if title else {}

    path, key = work_dir / 'sweep.png', numeric_key(rows)
    if key is not None:
        panels: dict[str, dict[str, list]] = {}
        for row in rows:
            others = zip(row.setting.values, row.setting.short_values().items(), strict=True)
            heading = ', '.join(f'{k} = {value}' for full, (k, value) in others if full != key)
            point = (float(row.setting.values[key]), list(row.accuracies.values()))
            lines = panels.setdefault(heading, {})
            lines.setdefault(row.setting.config.stem, []).append(point)
        paths = [plot_values(path, panels, key, teacher, **texts)]
    else:
        settings = {row.setting.name: list(row.accuracies.values()) for row in rows}
        paths = [plot_settings(path, settings, teacher, **texts)]
    histories = {row.setting.name: row.histories for row in rows}
    means = {name: mean_curve(found) for name, found in histories.items()}
    curves = {name: curve for name, curve in means.items() if len(curve) > 1}
    units = {unit_of(records, KEY) for found in histories.values() for records in found}
    if curves and len(units) == 1:  # epochs and iterations share no axis
        label = (
            f'Accuracy on {sets} in percent, {"mean of the seeds" if seeds > 1 else "one run each"}'
        )
        unit = units.pop()
        title = title or f'How each setting grew, {unit} by {unit}'
        paths.append(plot_sweep(work_dir / 'epochs.png', curves, teacher, title, label, unit))
    return paths


def numeric_key(rows: Sequence[Row]) -> str | None:
    """Find the first key with two numbers or more and nothing else: the axis of the picture."""
    for key in rows[0].setting.values:
        values = {number(row.setting.values[key]) for row in rows}
        if len(values) > 1 and not any(isinstance(value, str) for value in values):
            return key
    return None


def mean_curve(histories: Sequence[list[dict[str, Any]]]) -> list[tuple[float, float]]:
    """Mean over seeds of the accuracy in each epoch."""
    curves = [dict(curve_of(records, KEY)) for records in histories]
    epochs = sorted(set.intersection(*map(set, curves)))
    return [(epoch, sum(curve[epoch] for curve in curves) / len(curves)) for epoch in epochs]


def main() -> None:
    """Run, tabulate, draw; exit with status 1 where a run failed."""
    args = parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def resume_hint() -> str:
        return 'finished runs and checkpoints are kept. The same command continues.'

    with report_errors(resume_hint):
        runs = plan(args)
        console.print(
            f'{len(runs)} runs, {args.jobs} at once. Everything goes to {args.work_dir}.',
            soft_wrap=True,
        )
        run_all(runs, args.jobs, console)
        rows = gather(runs)
        paths = write_tables(rows, args.seed, args.work_dir)
        if any(row.runs for row in rows):
            paths += draw(rows, args.work_dir, args.title)
        print_table(rows, console)
        if args.quick:
            console.print('These are toy-sized runs: the numbers mean nothing.')
        console.print('\n'.join(map(str, paths)), soft_wrap=True)
    failed = [run for run in runs if run.problem]
    if failed:
        print(f'\n{len(failed)} of {len(runs)} runs failed:', file=sys.stderr)
        for run in failed:
            print(f'  {run}: {run.problem}', file=sys.stderr)
        print('Put that right and run this again: the others are kept.', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()
