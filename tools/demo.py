# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Distil a student without its teacher's data, beside its controls: ``make demo``.

Trains on the embedded ``digits`` benchmark, prints one table and draws what happened. A row that
was finished before is not trained again; an interrupted one continues.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.files import atomic_path, write_json
from mmdfkd.utils.reporting import report_errors
from mmdfkd.utils.train_process import TrainProcess, recipe_hash, side_by_side
from mmdfkd.visualization.comparison import duration
from mmdfkd.visualization.records import read_summary

if TYPE_CHECKING:
    from mmdfkd.models.classifiers import Classifier

ROOT = Path(__file__).absolute().parents[1]
TRAIN = ROOT / 'tools' / 'train.py'


class Pair(NamedTuple):
    """Teacher and student, and how long the demo takes with them on 2 cores."""

    teacher: str
    student: str
    minutes: int


class Row(NamedTuple):
    """One way to train the student: its name, its images, its config below ``configs/``."""

    key: str
    name: str
    images: str
    config: str


PAIRS = {
    'lenet5': Pair('lenet5', 'lenet5-half', 4),
    'resnet8': Pair('resnet8', 'resnet8-half', 8),
}
ROWS = (
    Row('original', 'Student, original data', 'original', 'teachers/{student}_digits.py'),
    Row('noise', 'KD, pure noise', 'noise', 'kd/kd_{teacher}_{student}_*_digits-noise.py'),
    Row('random', 'KD, random pool images', 'pool', 'kd/kd_{teacher}_{student}_*_digits-random.py'),
    Row('kd3', 'KD³, selected pool images', 'pool', 'kd3/kd3_{teacher}_{student}_*_digits.py'),
)

PYTHON_EXAMPLE = """\
from mmdfkd.datasets import DigitsDataset
from mmdfkd.models.classifiers import load_classifier
student = load_classifier('{student}').eval()
image = DigitsDataset('test')[0]['inputs']  # a tensor (1, 32, 32) of grey values, 0 to 255
print(student((image[None] - student.mean[0]) / student.std[0]).argmax(1))"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Distil a student beside its controls')
    parser.add_argument('--pair', choices=PAIRS, default='lenet5', help='teacher and student')
    parser.add_argument(
        '--seed', type=int, nargs='+', default=[0], help='several: mean and standard deviation'
    )
    parser.add_argument('--quick', action='store_true', help='toy-sized, to see that it works')
    parser.add_argument('--out', type=Path, help='where everything goes; default work_dirs/demo')
    args = parser.parse_args()
    if args.out is None:
        parts = ['demo', *[args.pair] * (args.pair != 'lenet5'), *['quick'] * args.quick]
        args.out = Path('work_dirs', '-'.join(parts))
    return args


# Training ---------------------------------------------------------------------------------------


class Training(TrainProcess):
    """One row with one seed, and what its process leaves.

    The folder carries a hash of the resolved config and of the teacher, so results of another
    recipe never count.
    """

    def __init__(self, row: Row, config: Path, seed: int, out: Path, quick: bool) -> None:
        from mmdfkd.models.classifiers import resolve_checkpoint

        content, teacher = load_config(config), ''
        if 'teacher' in content.model:  # the name of a file that ships tells its content
            teacher = resolve_checkpoint(content.model.teacher.checkpoint).name
        name = f'{config.stem}-seed{seed}-{recipe_hash(content, teacher)}'
        super().__init__(TRAIN, config, seed, out / 'runs' / name, quick)
        self.log = out / 'runs' / f'{name}{"-quick" if quick else ""}.log'
        self.row = row
        self.epochs = 2 if quick else content.train_cfg.max_epochs
        self.first: tuple[float, int] | None = None  # when we saw which epoch first

    @property
    def summary(self) -> dict[str, Any]:
        """What the run recorded so far."""
        return read_summary(self.work_dir)

    @property
    def student(self) -> Path:
        """File of the finished student."""
        return self.work_dir / 'student.pth'

    @property
    def finished(self) -> bool:
        """Whether there is a student of this very recipe."""
        return self.student.exists() and self.summary.get('finished', False)

    def check(self) -> None:
        """Raise what the process ended with, if it ended badly."""
        if self.poll() and self.problem:
            raise UsageError(
                f'"{self.row.name}" (seed {self.seed}) failed: {self.problem} Put that right and '
                'run the demo again: finished rows are kept.'
            )


def plan(args: argparse.Namespace) -> list[Training]:
    """Find the config of each row."""
    pair, trainings = PAIRS[args.pair], []
    for row in ROWS:
        pattern = row.config.format(teacher=pair.teacher, student=pair.student)
        found = sorted((ROOT / 'configs').glob(pattern), key=lambda path: len(path.name))
        if not found:
            raise UsageError(
                f'configs/{pattern} does not exist: the demo needs it for "{row.name}".'
            )
        config = Path(os.path.relpath(found[0]))
        trainings += [Training(row, config, seed, args.out, args.quick) for seed in args.seed]
    return trainings


def train(trainings: list[Training], console: Console) -> None:
    """Train what is not finished, one run per core and at most two at once."""
    waiting = [training for training in trainings if not training.finished]
    waiting.sort(key=lambda training: training.row.key != 'kd3')  # the longest first
    slots = min(2, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 2)
    several = len({training.seed for training in trainings}) > 1
    with progress(console) as bar, closing(side_by_side(waiting, slots)) as running:
        tasks: dict[Training, TaskID] = {}
        for training in trainings:
            name = training.row.name + (f' (seed {training.seed})' if several else '')
            state = 'waiting' if training in waiting else 'trained before'
            done = 0 if training in waiting else training.epochs
            tasks[training] = bar.add_task(name, total=training.epochs, completed=done, state=state)
        for training, ended in running:
            if ended:
                training.check()
            show(bar, tasks[training], training)
            if ended and not console.is_terminal:
                console.print(f'Trained: {bar.tasks[tasks[training]].description}.')


def progress(console: Console) -> Progress:
    """One line for each run; silent without a terminal."""
    return Progress(
        TextColumn('  {task.description}'),
        BarColumn(bar_width=24),
        TextColumn('{task.fields[state]}'),
        console=console,
        disable=not console.is_terminal,
    )


def show(bar: Progress, task: TaskID, training: Training) -> None:
    """Bring a line up to date: epoch, accuracy so far, time left."""
    summary = training.summary
    epoch = summary.get('epoch', 0)
    if not epoch:
        bar.update(task, state='starting')
        return
    if training.first is None:
        training.first = (time.monotonic(), epoch)
    since, first = training.first
    accuracy = f'{summary["student_accuracy_last"]:.1f} %'
    if summary['finished']:
        state = f'{accuracy} after {duration(summary["seconds"])}'
    elif epoch == first:
        state = f'epoch {epoch}/{training.epochs}, {accuracy}'
    elif epoch > bar.tasks[task].completed:
        left = (time.monotonic() - since) / (epoch - first) * (training.epochs - epoch)
        state = f'epoch {epoch}/{training.epochs}, {accuracy}, {duration(left)} left'
    else:
        return
    bar.update(task, completed=epoch, state=state)


# What came of it --------------------------------------------------------------------------------


def tabulate(trainings: list[Training], teacher: Classifier) -> dict[str, Any]:
    """Test every student as it was written to disk; gather means and deviations over seeds."""
    from mmdfkd.datasets import DigitsDataset
    from mmdfkd.engine import predict_logits
    from mmdfkd.models.classifiers import load_classifier
    from mmdfkd.models.data_preprocessors import BatchPreprocessor
    from mmdfkd.utils.counting import count_macs, count_parameters

    test = DigitsDataset('test')

    def predict(network: Classifier) -> Any:
        preprocessor = BatchPreprocessor(network.mean, network.std)
        return predict_logits(network, test, preprocessor).argmax(1).numpy()

    def measure(prediction: Any, network: Classifier) -> dict[str, Any]:
        return dict(
            accuracy=100 * float((prediction == test.labels).mean()),
            agreement=100 * float((prediction == answers).mean()),
            weights=count_parameters(network),
            macs=count_macs(network),
        )

    answers = predict(teacher)
    top: dict[str, Any] = dict(key='teacher', name=f'Teacher {teacher.name}', images='original')
    top.update(measure(answers, teacher), images_used=None, seconds=None)
    rows = [top]
    for row in ROWS:
        runs = [training for training in trainings if training.row.key == row.key]
        each = []
        for training in runs:
            student, summary = load_classifier(training.student), training.summary
            each.append(
                dict(
                    seed=training.seed,
                    **measure(predict(student), student),
                    images_used=summary['images_used'],
                    seconds=summary['seconds'],
                    work_dir=str(training.work_dir),
                )
            )
        content: dict[str, Any] = dict(key=row.key, name=row.name, images=row.images)
        content.update(config=str(runs[0].config), seeds=each)
        for key in ('accuracy', 'agreement', 'weights', 'macs', 'images_used', 'seconds'):
            values = [run[key] for run in each]
            content[key] = mean(values)
            if key in ('accuracy', 'agreement'):
                content[f'{key}_std'] = stdev(values) if len(values) > 1 else None
        rows.append(content)
    facts = {key: trainings[0].summary[key] for key in ('device', 'versions', 'commit')}
    return dict(rows=rows, test_images=len(test), **facts)


HEADINGS = (
    '',
    'accuracy',
    'agrees with teacher',
    'weights',
    'multiply-adds',
    'images used',
    'seconds',
)


def cells(row: dict[str, Any]) -> list[str]:
    """Write the numbers of a row the way people read them."""

    def percent(key: str) -> str:
        spread = row.get(f'{key}_std')
        return f'{row[key]:.1f}' + (f' ± {spread:.1f}' if spread is not None else '') + ' %'

    used = f'{round(row["images_used"]):,} {row["images"]}' if row['images_used'] else '–'
    return [
        row['name'],
        percent('accuracy'),
        percent('agreement') if row['key'] != 'teacher' else '–',
        f'{round(row["weights"]):,}',
        f'{round(row["macs"]):,}',
        used,
        f'{row["seconds"]:.0f}' if row['seconds'] is not None else '–',
    ]


def print_table(table: dict[str, Any], console: Console) -> None:
    """Print the rows."""
    printed = Table(title_justify='left')
    for place, heading in enumerate(HEADINGS):
        printed.add_column(heading, justify='right' if place else 'left')
    for row in table['rows']:
        style = 'bold green' if row['key'] == 'kd3' else None
        printed.add_row(*cells(row), style=style, end_section=row['key'] == 'teacher')
    console.print(printed)


def markdown(table: dict[str, Any]) -> str:
    """Write the rows as a Markdown table."""
    lines = [HEADINGS, ('---', *('---:' for _ in HEADINGS[1:])), *map(cells, table['rows'])]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def draw(table: dict[str, Any], work_dir: Path, teacher: Classifier, out: Path) -> list[Path]:
    """Draw all pictures; the original training images are opened here, for the first time."""
    import numpy as np

    from mmdfkd.datasets import DigitsDataset
    from mmdfkd.models.classifiers import load_classifier
    from mmdfkd.visualization import draw_features, draw_run, plot_comparison, plot_readme_banner
    from mmdfkd.visualization.records import chosen, read_selection, training_images

    pool = training_images(work_dir)
    kept = chosen(read_selection(work_dir), len(pool))
    top, *students = table['rows']
    bars = [
        dict(
            name=row['name'],
            accuracy=row['accuracy'],
            std=row['accuracy_std'],
            agreement=row['agreement'],
            images=round(row['images_used']),
            seconds=row['seconds'],
            baseline=row['key'] != 'kd3',
        )
        for row in students
    ]
    seeds = len(students[0]['seeds'])
    note = f'Students of {teacher.name}, tested on {table["test_images"]} handwritten digits' + (
        f': mean and standard deviation of {seeds} seeds.' if seeds > 1 else '.'
    )
    accuracy = top['accuracy']
    return [
        plot_comparison(out / 'comparison.png', bars, accuracy, note=note),
        plot_readme_banner(
            out / 'banner.png',
            pool.images[np.flatnonzero(kept)],
            pool.images[np.flatnonzero(~kept)],
            bars,
            accuracy,
            teacher=f'{teacher.name}, {round(top["weights"] / 1000)} k weights',
            student=load_classifier(work_dir / 'student.pth').name,
        ),
        *draw_run(work_dir, pool, out),
        draw_features(
            out / 'features.png', work_dir, DigitsDataset('train'), 100 if table['quick'] else 500
        )[0],
    ]


PICTURES = {
    'comparison.png': 'accuracy and cost of each row',
    'history.png': "KD³'s accuracy and selected share by epoch",
    'selection.png': 'which images KD³ selected and set aside, by class',
    'features.png': 'original, selected and rejected images in feature space (t-SNE)',
    'banner.png': 'the whole idea in one picture',
}


def main() -> None:
    """Run."""
    args = parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def resume_hint() -> str:
        return 'finished rows and checkpoints are kept. The same command continues.'

    with report_errors(resume_hint):
        trainings = plan(args)
        demo(args, trainings, console)


def demo(args: argparse.Namespace, trainings: list[Training], console: Console) -> None:
    """Train, tabulate, draw, and say what there is now."""
    from mmengine.registry import init_default_scope

    from mmdfkd.models.classifiers import build_teacher
    from mmdfkd.registry import DATASETS

    missing = sum(not training.finished for training in trainings)
    minutes = max(1, round(PAIRS[args.pair].minutes * missing / len(ROWS)))
    wait = 'half a minute' if args.quick else f'about {minutes} min on 2 cores'
    todo = f'{missing} trainings, {wait}' if missing else 'all trained before'
    configs = {training.row.key: load_config(training.config) for training in trainings}
    init_default_scope('mmdfkd')
    teacher = build_teacher(configs['kd3'].model.teacher)
    student = configs['kd3'].model.student.name
    console.print(
        f"\nThis distils {student} from {teacher.name} without {teacher.name}'s training "
        f'data (KD³), beside\nthree controls: {todo}. Everything goes to {args.out}.\n'
    )
    if missing and not args.quick:
        DATASETS.build(configs['kd3'].train_dataloader.dataset)  # drawn once, with a progress bar
    train(trainings, console)

    table = dict(pair=args.pair, quick=args.quick, **tabulate(trainings, teacher))
    write_json(args.out / 'table.json', table)
    with atomic_path(args.out / 'table.md') as temporary:
        temporary.write_text(markdown(table), encoding='utf-8')
    console.print()
    print_table(table, console)
    if args.quick:
        console.print('These are toy-sized runs: the numbers mean nothing.')

    best = next(training for training in trainings if training.row.key == 'kd3')
    with console.status('Drawing the pictures'):
        paths = draw(table, best.work_dir, teacher, args.out / 'figures')
    console.print('\nPictures worth opening:')
    for path in sorted(paths, key=lambda path: list(PICTURES).index(path.name)):
        console.print(f'  {path}: {PICTURES[path.name]}', soft_wrap=True)
    student_file = args.out / 'student.pth'
    with atomic_path(student_file) as temporary:
        shutil.copyfile(best.student, temporary)
    python = os.path.relpath(sys.executable)  # that of make is .venv/bin/python
    python = 'python' if python.startswith('..') else python
    console.print(
        f'\nYou now have a {student} that never saw a training image of its teacher:\n  '
        f'{student_file}\n\nTest it:\n  {python} tools/test.py {best.config} {student_file}\n\n'
        f'Use it from Python ({python}):',
        soft_wrap=True,
    )
    example = PYTHON_EXAMPLE.format(student=student_file)
    console.print('  ' + example.replace('\n', '\n  '), soft_wrap=True, markup=False)


if __name__ == '__main__':
    main()
