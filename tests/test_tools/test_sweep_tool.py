# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Sweeps, with a stand-in for tools/train.py that takes no time; and once with the real one."""

import csv
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from PIL import Image
from rich.progress import Progress
from rich.text import Text

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'sweep.py'
LENET = 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
RESNET = 'configs/kd3/kd3_resnet8_resnet8-half_1xb128-40e_digits.py'
WEIGHT = 'model.contrast.loss_weight'

# Two epochs; 80 % after the first, 90 + 10 * loss_weight + seed after the second. It counts its
# starts, obeys --resume, stops before the second epoch while there is a file 'wait', and fails
# at a weight of 0.5 while there is a file 'broken'.
TRAIN = """
import argparse, json, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--resume', action='store_true')
parser.add_argument('--quick', action='store_true')
parser.add_argument('--work-dir', type=pathlib.Path)
parser.add_argument('--seed', type=int)
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
options = dict(option.split('=') for option in args.cfg_options)
weight = float(options.get('model.contrast.loss_weight', 0))
here = pathlib.Path(__file__).parent
folder = args.work_dir
(folder / 'd' / 'vis_data').mkdir(parents=True, exist_ok=True)
with open(folder / 'starts', 'a') as file:
    file.write('x')
with open(here / 'order', 'a') as file:
    print(pathlib.Path(args.config).stem, *args.cfg_options, args.seed, file=file)
if weight == 0.5 and (here / 'broken').exists():
    sys.exit('error: The pool is gone. Copy it again.')
checkpoint = folder / 'last_checkpoint'
first = int(checkpoint.read_text()) + 1 if args.resume and checkpoint.exists() else 1
for epoch in range(first, 3):
    while epoch == 2 and (here / 'wait').exists():
        time.sleep(0.01)
    accuracy = 80 if epoch == 1 else 90 + 10 * weight + args.seed
    with open(folder / 'd' / 'vis_data' / 'scalars.json', 'a') as file:
        print(json.dumps({'accuracy/top1': accuracy, 'step': epoch}), file=file)
    record = dict(finished=epoch == 2, epoch=epoch, student_accuracy_last=accuracy, seconds=1.5)
    record.update(teacher_accuracy=99.2, dataset='digits')
    temporary = folder / 'summary.tmp'
    temporary.write_text(json.dumps(record))
    temporary.replace(folder / 'summary.json')
    checkpoint.write_text(str(epoch))
"""


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """The script as a module, with the stand-in."""
    spec = importlib.util.spec_from_file_location('sweep_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / 'train.py').write_text(TRAIN)
    monkeypatch.setattr(module, 'TRAIN', tmp_path / 'train.py')
    return module


@pytest.fixture
def run(sweep, tmp_path, monkeypatch, capsys):
    """Call it; returns exit status, output and errors."""

    def run(*arguments, out='out'):
        argv = ['sweep.py', *map(str, arguments), '--work-dir', str(tmp_path / out)]
        monkeypatch.setattr(sys, 'argv', argv)
        handler = signal.getsignal(signal.SIGTERM)
        status = 0
        try:
            sweep.main()
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def table(folder):
    with open(folder / 'table.csv', newline='') as file:
        return list(csv.DictReader(file))


def starts(folder):
    return sorted(len(path.read_text()) for path in folder.glob('runs/*/starts'))


def test_values_and_seeds_become_means_and_deviations(run, tmp_path):
    status, printed, _ = run(LENET, '--set', f'{WEIGHT}=0,0.01,0.1', '--seed', 0, 1, 2)
    assert status == 0
    out = tmp_path / 'out'
    rows = table(out)
    # Seeds add 0, 1, 2: mean 1, sample standard deviation 1. The weight adds ten times itself.
    assert [float(row['mean']) for row in rows] == pytest.approx([91, 91.1, 92])
    assert [float(row['std']) for row in rows] == pytest.approx([1, 1, 1])
    assert [(row[WEIGHT], row['n'], row['config']) for row in rows] == [
        (weight, '3', LENET) for weight in ('0', '0.01', '0.1')
    ]
    assert [float(rows[1][f'seed {seed}']) for seed in range(3)] == pytest.approx(
        [90.1, 91.1, 92.1]
    )
    text = (out / 'table.md').read_text()
    assert f'| {Path(LENET).stem} | 0.01 | 91.10 ± 1.00 | 3 |' in text
    assert '91.10 ± 1.00' in printed and '9/9' in printed
    for name in ('sweep', 'epochs'):
        with Image.open(out / f'{name}.png') as image:
            assert image.width == 1920
        assert f'{out}/{name}.png' in printed


def test_several_keys_make_a_grid_and_several_configs_rows(sweep, tmp_path):
    arguments = [
        LENET,
        RESNET,
        '--set',
        f'{WEIGHT}=0,0.1',
        '--set',
        'model.selector.norm=linear,none',
    ]
    runs = sweep.plan(sweep.parse_args([*arguments, '--seed', '3', '4', '3']))
    assert len(runs) == 2 * 2 * 2 * 2  # a seed is not run twice
    assert len({run.work_dir for run in runs}) == 16
    settings = list({id(r.setting): r.setting for r in runs}.values())
    assert [s.config for s in settings] == [Path(LENET)] * 4 + [Path(RESNET)] * 4
    assert settings[1].values == {WEIGHT: '0', 'model.selector.norm': 'none'}
    assert runs[2].command[-3:] == ['--cfg-options', f'{WEIGHT}=0', 'model.selector.norm=none']


def test_a_second_call_runs_nothing_and_a_new_value_only_itself(run, tmp_path):
    run(LENET, '--set', f'{WEIGHT}=0,0.1', '--seed', 0, 1)
    status, printed, _ = run(LENET, '--set', f'{WEIGHT}=0,0.1', '--seed', 0, 1)
    assert status == 0 and '4 of 4 runs were finished before' in printed
    assert starts(tmp_path / 'out') == [1] * 4
    run(LENET, '--set', f'{WEIGHT}=0,0.1,0.2', '--seed', 0, 1)
    assert starts(tmp_path / 'out') == [1] * 6


def test_another_recipe_is_another_run(run, tmp_path):
    run(LENET)
    run(LENET, '--cfg-options', 'model.selector.norm=linear')
    run(LENET, '--cfg-options', 'model.selector.norm=convex')  # the default: still another text
    assert len(starts(tmp_path / 'out')) == 3


def test_a_teacher_trained_anew_is_another_recipe(sweep, tmp_path):
    from mmdfkd.models.classifiers import resolve_checkpoint

    teacher = tmp_path / 'teacher.pth'
    teacher.write_bytes(resolve_checkpoint('mmdfkd://lenet5_digits').read_bytes())

    def plan():
        option = f'model.teacher.checkpoint={teacher}'
        sweep.file_hash.cache_clear()
        (run,) = sweep.plan(sweep.parse_args([LENET, '--cfg-options', option]))
        return run.work_dir

    before = plan()
    assert plan() == before
    teacher.write_bytes(b'another')
    assert plan() != before


def test_a_failed_run_is_named_and_the_others_go_on(run, tmp_path):
    (tmp_path / 'broken').touch()
    status, printed, errors = run(LENET, '--set', f'{WEIGHT}=0,0.5,1', '--jobs', 2)
    assert status == 1
    assert [row['n'] for row in table(tmp_path / 'out')] == ['1', '0', '1']
    assert '| 0.5 | – | 0 |' in (tmp_path / 'out' / 'table.md').read_text()
    assert '1 of 3 runs failed:\n  loss_weight=0.5, seed 0: The pool is gone. Copy it' in errors
    log = re.search(r'Its log is (.*\.log)\.', errors)[1]
    assert 'The pool is gone' in Path(log).read_text()

    (tmp_path / 'broken').unlink()  # put right: only that one runs again
    assert run(LENET, '--set', f'{WEIGHT}=0,0.5,1')[0] == 0
    assert starts(tmp_path / 'out') == [1, 1, 2]
    assert [row['n'] for row in table(tmp_path / 'out')] == ['1', '1', '1']


def test_where_all_fail_there_is_still_a_table(run, tmp_path):
    (tmp_path / 'broken').touch()
    status, _, errors = run(LENET, '--set', f'{WEIGHT}=0.5')
    assert status == 1 and '1 of 1 runs failed' in errors
    assert [row['n'] for row in table(tmp_path / 'out')] == ['0']


def test_a_list_of_configs_is_drawn_in_rows(run, tmp_path):
    status, printed, _ = run(RESNET, LENET, '--seed', 0, 2)
    assert status == 0
    assert [row['config'] for row in table(tmp_path / 'out')] == [RESNET, LENET]
    assert f'{Path(LENET).stem}, seed 2' in printed
    assert (tmp_path / 'out' / 'sweep.png').exists()


def interrupt(tmp_path, send):
    """Start a sweep, let the first run wait in its second epoch, end it; its process and errors."""
    driver = (
        'import importlib.util, pathlib, sys\n'
        f'spec = importlib.util.spec_from_file_location("sweep_tool", {str(TOOL)!r})\n'
        'module = importlib.util.module_from_spec(spec)\n'
        'spec.loader.exec_module(module)\n'
        f'module.TRAIN = pathlib.Path({str(tmp_path / "train.py")!r})\n'
        'module.main()\n'
    )
    (tmp_path / 'wait').touch()
    arguments = [LENET, '--seed', '0', '1', '--work-dir', str(tmp_path / 'out')]
    process = subprocess.Popen(
        [sys.executable, '-c', driver, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        # Where these tests run in the background, a shell has told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob('out/runs/*/last_checkpoint')) and time.monotonic() < deadline:
        time.sleep(0.02)
    send(process)
    errors = process.communicate(timeout=90)[1]
    return process, errors


def test_ctrl_c_ends_all_and_the_same_command_continues(run, tmp_path, ends):
    (tmp_path / 'train.py').write_text(TRAIN)
    process, errors = interrupt(tmp_path, lambda process: os.killpg(process.pid, signal.SIGINT))
    assert process.returncode == 130 and ends(process.pid)
    assert 'interrupted: finished runs and checkpoints are kept. The same command' in errors
    (tmp_path / 'wait').unlink()
    assert run(LENET, '--seed', 0, 1)[0] == 0
    assert starts(tmp_path / 'out') == [1, 2]
    # The interrupted run went on with its second epoch.
    (scalars,) = [
        path
        for path in tmp_path.glob('out/runs/*/d/vis_data/scalars.json')
        if (path.parents[2] / 'starts').read_text() == 'xx'
    ]
    assert [json.loads(line)['step'] for line in scalars.read_text().splitlines()] == [1, 2]


def test_a_terminated_sweep_takes_its_runs_along(sweep, tmp_path, ends):
    process, _ = interrupt(tmp_path, lambda process: process.terminate())
    assert process.returncode == 143 and ends(process.pid)


def test_a_run_of_another_process_is_left_alone(sweep, run, tmp_path):
    pytest.importorskip('fcntl')
    (planned,) = sweep.plan(sweep.parse_args([LENET, '--work-dir', str(tmp_path / 'out')]))
    planned.log.parent.mkdir(parents=True)
    with planned.log.open('a') as log:
        assert sweep.try_lock(log)
        status, _, errors = run(LENET)
    assert status == 1 and 'another process is training it already' in errors
    assert not starts(tmp_path / 'out')


@pytest.fixture
def make_row(sweep, monkeypatch):
    """Rows of finished runs with two epochs: 80 %, then what is given, by seed."""
    histories = {}
    monkeypatch.setattr(sweep, 'read_history', lambda work_dir: histories[work_dir])

    def make(accuracies, first=80.0, teacher=99.2, **values):
        setting, runs = sweep.Setting(Path(LENET), values, False), {}
        for seed, accuracy in accuracies.items():
            name = f'{values}-{seed}'
            summary = dict(student_accuracy_last=accuracy, seconds=10.0 * (seed + 1))
            summary.update(teacher_accuracy=teacher, dataset='digits')
            runs[seed] = SimpleNamespace(summary=summary, work_dir=name)
            points = enumerate((first, accuracy), 1)
            histories[name] = [{'accuracy/top1': v, 'step': k} for k, v in points if v is not None]
        return sweep.Row(setting, runs)

    return make


@pytest.fixture
def asked(monkeypatch):
    """What is asked of each figure, by the name of its function."""
    calls = {}
    for name in ('plot_values', 'plot_settings', 'plot_sweep'):
        monkeypatch.setattr(
            f'mmdfkd.visualization.{name}',
            lambda path, *args, name=name, **more: calls.update({name: (*args, more)}) or path,
        )
    return calls


def test_lines_over_the_first_number_in_a_panel_for_each_of_the_others(
    sweep, make_row, asked, tmp_path
):
    rows = [
        make_row({0: 90.0 + 10 * float(weight) + plus, 2: 94.0}, weight=weight, norm=norm)
        for weight in ('0', '0.1')
        for norm, plus in (('linear', 0), ('none', 3))
    ]
    sweep.draw(rows, tmp_path, None)
    panels, key, teacher, texts = asked['plot_values']
    stem = Path(LENET).stem
    assert panels == {
        'norm = linear': {stem: [(0, [90, 94]), (0.1, [91, 94])]},
        'norm = none': {stem: [(0, [93, 94]), (0.1, [94, 94])]},
    }
    assert (key, teacher) == ('weight', 99.2)
    assert 'digits in percent, last epoch: mean and standard deviation of 2 seeds' in texts['note']
    curves, teacher, title, label = asked['plot_sweep'][:4]
    assert curves['weight=0.1, norm=linear'] == [(1, 80), (2, 92.5)] and len(curves) == 4
    assert teacher == 99.2 and 'mean of the seeds' in label


def test_curves_are_over_what_the_runs_count(sweep, make_row, asked, tmp_path, monkeypatch):
    rows = [make_row({0: 90.0}, norm='linear'), make_row({0: 91.0}, norm='none')]
    read = sweep.read_history

    def by_iteration(work_dir):
        return [{**record, 'iter': record['step']} for record in read(work_dir)]

    sweep.draw(rows, tmp_path, None)
    assert asked['plot_sweep'][2] == 'How each setting grew, epoch by epoch'
    monkeypatch.setattr(sweep, 'read_history', by_iteration)
    sweep.draw(rows, tmp_path, None)
    assert asked['plot_sweep'][2] == 'How each setting grew, iteration by iteration'
    assert asked.pop('plot_sweep')[4] == 'iteration'

    def by_either(work_dir):
        return by_iteration(work_dir) if 'linear' in work_dir else read(work_dir)

    monkeypatch.setattr(sweep, 'read_history', by_either)
    assert [path.name for path in sweep.draw(rows, tmp_path, None)] == ['sweep.png']
    assert 'plot_sweep' not in asked


def test_lists_are_printed_whole(sweep, make_row, monkeypatch, capsys):
    """rich takes what is in brackets for a colour."""
    row = make_row({0: 90.0}, compile='[teacher]')
    sweep.print_table([row], sweep.Console(width=140, highlight=False))
    assert '[teacher]' in capsys.readouterr().out

    shown = []

    class Bar(Progress):
        def remove_task(self, task):
            shown.append(Text.from_markup(self.tasks[task].description).plain)
            super().remove_task(task)

    monkeypatch.setattr(sweep, 'progress_bar', lambda: Bar(disable=True))
    run = MagicMock(finished=False, summary={}, epochs=2, problem='none')
    run.__str__.return_value = 'compile=[teacher], seed 0'
    sweep.run_all([run], 1, sweep.Console(quiet=True))
    assert shown == ['compile=[teacher], seed 0']


def test_settings_without_a_numeric_axis_are_rows(sweep, make_row, asked, tmp_path):
    rows = [make_row({0: 90.0}, norm='linear'), make_row({0: 91.0}, None, 85.0, norm='none')]
    sweep.draw(rows, tmp_path, 'Mine')
    assert asked['plot_sweep'][0] == {'norm=linear': [(1, 80), (2, 90)]}  # one epoch: no curve
    settings, teacher, texts = asked['plot_settings']
    assert settings == {'norm=linear': [90], 'norm=none': [91]}
    assert teacher is None and texts['title'] == 'Mine'  # there were two of them
    sweep.draw(rows[:1], tmp_path, None)
    assert asked['plot_settings'][1] == 99.2
    assert 'one run each' in texts['note']


def test_the_axis_is_a_number_that_changes(sweep, make_row):
    rows = [make_row({0: 90.0}, epochs='5', weight=weight) for weight in ('0', '0.1')]
    assert sweep.numeric_key(rows) == 'weight' and sweep.numeric_key(rows[:1]) is None


def test_a_mean_curve_is_of_epochs_that_all_seeds_have(sweep, make_row):
    row, late = make_row({0: 90.0, 1: 92.0}, w='1'), make_row({5: 97.0}, None, w='1')
    row.runs.update(late.runs)
    assert sweep.mean_curve(row.histories) == [(2, 93)]


def test_the_history_of_a_run_is_read_once(sweep, make_row, asked, tmp_path, monkeypatch):
    rows = [make_row({0: 90.0, 1: 92.0}, w=w) for w in '12']
    read, paths = sweep.read_history, []
    monkeypatch.setattr(sweep, 'read_history', lambda path: paths.append(path) or read(path))
    sweep.draw(rows, tmp_path, None)
    assert len(paths) == len(set(paths)) == 4


def test_numbers_stand_in_the_columns_of_their_seeds(sweep, make_row, tmp_path):
    rows = [make_row({1: 90.0, 0: 93.0}, w='1'), make_row({1: 88.0}, w='2'), make_row({}, w='3')]
    sweep.write_tables(rows, [0, 1], tmp_path)
    both, second, none = table(tmp_path)
    assert (float(both['mean']), float(both['std'])) == (91.5, pytest.approx(4.5**0.5))
    assert (both['seed 0'], both['seed 1'], both['seconds']) == ('93.0', '90.0', '15.0')
    assert (second['seed 0'], second['seed 1'], second['std']) == ('', '88.0', '')
    assert (none['mean'], none['n'], none['seconds']) == ('', '0', '')


def test_mixed_precision_is_another_recipe_and_reaches_each_run(sweep):
    (plain,), (mixed,) = (sweep.plan(sweep.parse_args([LENET, *more])) for more in ([], ['--amp']))
    assert plain.work_dir != mixed.work_dir
    assert '--amp' in mixed.command and '--amp' not in plain.command


def test_each_run_has_one_thread_and_a_gpu_of_its_own(sweep, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    assert [sweep.environment(slot)['CUDA_VISIBLE_DEVICES'] for slot in range(3)] == ['0', '1', '0']
    assert sweep.environment(0)['OMP_NUM_THREADS'] == '1'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert sweep.environment(1)['CUDA_VISIBLE_DEVICES'] == '6'
    assert sweep.environment(1)['OMP_NUM_THREADS'] == '3'


def test_configs_of_one_name_and_seeds_as_values_are_refused(run, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / Path(LENET).name).write_text((ROOT / LENET).read_text())
    status, _, errors = run(LENET, tmp_path / 'mine' / Path(LENET).name)
    assert status == 2 and f'Several configs are called {Path(LENET).stem}' in errors
    for option in ('--set', '--cfg-options'):
        status, _, errors = run(LENET, option, 'randomness.seed=3')
        assert status == 2 and 'randomness.seed is what --seed sets' in errors
    assert not starts(tmp_path / 'out')


def test_lengths_of_one_epoch_leave_the_other_curves(run, sweep, tmp_path):
    """The stand-in trains for two; one of them loses its first."""
    run(LENET, '--set', f'{WEIGHT}=0,0.1')
    short, _ = sorted(tmp_path.glob('out/runs/*/d/vis_data/scalars.json'))
    short.write_text(short.read_text().splitlines()[-1])
    (tmp_path / 'out' / 'epochs.png').unlink()
    assert run(LENET, '--set', f'{WEIGHT}=0,0.1')[0] == 0
    assert (tmp_path / 'out' / 'epochs.png').exists()


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        ('a.b=1', ['1']),
        ('a.b=1,1.0,2,1e0', ['1', '2']),
        ('a.b=0,0.001,1e-2', ['0', '0.001', '1e-2']),
        ('a.b=[1,2],[3]', ['[1,2]', '[3]']),
        ('a.b=(1,2),x', ['(1,2)', 'x']),
        ('a.b="p,q",r', ['"p,q"', 'r']),
        ('a.b=1,1,2', ['1', '2']),
    ],
)
def test_commas_separate_values(sweep, text, values):
    assert sweep.split_values(text) == ('a.b', values)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--set', WEIGHT], 'is not understood'),
        (['--set', f'{WEIGHT}='], 'is not understood'),
        (['--set', f'{WEIGHT}=1,,2'], 'is not understood'),
        (['--set', f'{WEIGHT}=1', '--set', f'{WEIGHT}=2'], 'twice'),
        (['--set', 'model.contrast.weihgt=1'], 'weihgt'),
        (['--cfg-options', 'model.feature'], 'has no value'),
        (['--cfg-options', 'model.teacher.checkpoint=nowhere.pth'], r'nowhere\.pth'),
        (
            ['--cfg-options', 'val_dataloader=None', 'val_cfg=None', 'val_evaluator=None'],
            'accuracy',
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(run, tmp_path, arguments, message):
    status, _, errors = run(LENET, *arguments)
    assert status == 2
    assert errors.startswith('error: ') and re.search(message, errors)
    assert not (tmp_path / 'out').exists()


def test_every_documented_sweep_is_in_order(sweep):
    pages = [*(ROOT / 'docs').rglob('*.md'), *(ROOT / 'configs').rglob('*.md')]
    commands = [
        command
        for page in pages
        for command in re.findall(
            r'^python tools/analysis_tools/sweep\.py (.*)$', page.read_text(), re.M
        )
    ]
    assert len(commands) >= 4
    for command in commands:
        arguments = []
        for word in shlex.split(command):
            arguments += sorted(map(str, Path().glob(word))) if '*' in word else [word]
        # Teachers of real size are not on this machine.
        assert sweep.plan(sweep.parse_args([*arguments, '--quick']))


@pytest.mark.slow
def test_with_the_real_training(tmp_path):
    result = subprocess.run(
        [sys.executable, TOOL, LENET, '--set', 'model.teacher_term=True,False', '--quick']
        + ['--work-dir', tmp_path],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, second = table(tmp_path)
    assert first['mean'] == second['mean']  # L_mdcl^T does not reach the student
    summaries = [json.loads(p.read_text()) for p in tmp_path.glob('runs/quick/*/summary.json')]
    assert [s['student_accuracy_last'] for s in summaries] == [float(first['mean'])] * 2
    assert len(list(tmp_path.glob('runs/quick/*/student.pth'))) == 2
    for name in ('sweep', 'epochs'):
        assert (tmp_path / f'{name}.png').exists()
