# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmdfkd.datasets import DigitsDataset
from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils import UsageError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'demo.py'
FIGURES = ('banner', 'comparison', 'features', 'history', 'selection')


@pytest.fixture(scope='module')
def demo():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location('demo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plan(demo, monkeypatch):
    """The trainings a command line asks for."""

    def plan(*argv):
        monkeypatch.setattr(sys, 'argv', ['demo.py', *map(str, argv)])
        return demo.plan(demo.parse_args())

    return plan


def accuracy(student):
    """Accuracy of a network file on the digits, by hand."""
    network = load_classifier(student).eval()
    test = DigitsDataset('test')
    images = torch.from_numpy(test.images[..., 0]).float()[:, None]
    with torch.no_grad():
        hits = network((images - 78.0) / 82.6).argmax(1).numpy() == test.labels
    return 100 * hits.mean()


@pytest.mark.slow
def test_the_whole_demo_at_toy_size(tmp_path, plan, capsys):
    result = subprocess.run(
        [sys.executable, TOOL, '--quick', '--out', tmp_path], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    table = json.loads((tmp_path / 'table.json').read_text())
    rows = {row['key']: row for row in table['rows']}
    assert list(rows) == ['teacher', 'original', 'noise', 'random', 'kd3']

    # Each number is that of the file on disk; the shipped teacher says its accuracy itself.
    assert rows['teacher']['accuracy'] == pytest.approx(accuracy('mmdfkd://lenet5_digits'))
    for key in ('original', 'noise', 'random', 'kd3'):
        (run,) = rows[key]['seeds']
        assert rows[key]['accuracy'] == pytest.approx(accuracy(f'{run["work_dir"]}/student.pth'))
        assert rows[key]['images_used'] > 0
    assert rows['original']['weights'] == 15738  # LeNet5-half, counted by DAFL's definition

    # The same rows are on the screen and in the Markdown file.
    cells = [line.strip('| \n').split(' | ') for line in open(tmp_path / 'table.md')][2:]
    assert [row[0] for row in cells] == [row['name'] for row in table['rows']]
    for row in cells:
        assert all(cell in result.stdout for cell in row)

    for name in FIGURES:
        with Image.open(tmp_path / 'figures' / f'{name}.png') as image:
            assert image.width >= 1920 and len(image.convert('L').getcolors()) > 50
        assert str(tmp_path / 'figures' / f'{name}.png') in result.stdout

    # What it tells the user to do works.
    example = re.search(r'from mmdfkd\.datasets.*argmax\(1\)\)', result.stdout, re.DOTALL).group()
    exec(example.replace('\n  ', '\n'), {})
    assert re.fullmatch(r'tensor\(\[\d\]\)\n', capsys.readouterr().out)
    (command,) = re.findall(r'tools/test\.py .*student\.pth', result.stdout)
    tested = subprocess.run(
        [sys.executable, *command.split(), '--work-dir', tmp_path / 'test'],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert f'accuracy/top1: {rows["kd3"]["accuracy"]:.4f}' in tested.stdout

    # A second call has nothing left to train; another seed has everything.
    assert all(t.finished for t in plan('--quick', '--out', tmp_path))
    assert not any(t.finished for t in plan('--quick', '--out', tmp_path, '--seed', 1))
    assert not any(t.finished for t in plan('--out', tmp_path))


def test_another_recipe_is_another_run(plan, monkeypatch, demo):
    before = plan('--quick')
    load = demo.load_config

    def changed(path):
        cfg = load(path)
        cfg.train_cfg.max_epochs += 1
        return cfg

    monkeypatch.setattr(demo, 'load_config', changed)
    after = plan('--quick')
    assert all(a.work_dir != b.work_dir for a, b in zip(before, after, strict=True))


def test_several_seeds_give_mean_and_deviation(demo):
    row = dict(key='kd3', name='KD³', images='pool', accuracy=97.0, accuracy_std=1.0)
    row.update(agreement=98.25, agreement_std=None, weights=15738, macs=2e5)
    row.update(images_used=11998.5, seconds=61.6)
    text = demo.cells(row)
    assert text == ['KD³', '97.0 ± 1.0 %', '98.2 %', '15,738', '200,000', '11,998 pool', '62']
    teacher = dict(row, key='teacher', images_used=None, seconds=None)
    assert demo.cells(teacher)[2] == '–' and demo.cells(teacher)[5:] == ['–', '–']


@pytest.fixture
def trained(demo, monkeypatch):
    """Trainings with two seeds, whose students are right about a known share of the digits."""
    labels = DigitsDataset('test').labels
    right = {  # of the first hundred; beyond them all give the right answer
        'teacher': range(90),
        'original0': range(15, 95),
        'original1': range(10, 94),
        'kd30': range(90),
        'kd31': range(60),
    }

    def predict_logits(network, *ignored):
        answers = torch.tensor(labels)
        wrong = [k for k in range(100) if k not in right.get(network.name, range(100))]
        answers[wrong] = (answers[wrong] + 1) % 10
        return torch.nn.functional.one_hot(answers, 10)

    monkeypatch.setattr('mmdfkd.engine.predict_logits', predict_logits)
    network = lambda name: SimpleNamespace(name=name, mean=[0.0], std=[1.0])  # noqa: E731
    monkeypatch.setattr('mmdfkd.models.classifiers.load_classifier', network)
    counts = 'mmdfkd.utils.counting.count_'
    monkeypatch.setattr(f'{counts}parameters', lambda network: 5000)
    monkeypatch.setattr(f'{counts}macs', lambda network: 70_000)
    facts = dict(device='cpu', versions={}, commit='')
    trainings = [
        SimpleNamespace(
            row=row,
            seed=seed,
            student=f'{row.key}{seed}',
            config=row.config,
            work_dir='runs',
            summary=dict(images_used=1000 * (seed + 1), seconds=30.0 + seed, **facts),
        )
        for row in demo.ROWS
        for seed in (0, 1)
    ]
    return trainings, network('teacher')


def test_the_table_is_of_what_each_student_says(demo, trained):
    table = demo.tabulate(*trained)
    teacher, original, *_, kd3 = table['rows']
    share = 100 / table['test_images']  # of one digit
    assert teacher['accuracy'] == pytest.approx(100 - 10 * share)
    assert original['accuracy'] == pytest.approx(100 - (20 + 16) / 2 * share)
    assert original['accuracy_std'] == pytest.approx(4 / 2**0.5 * share)
    # They disagree where one is right and the other wrong: 15 + 5 digits, and 10 + 4 of them.
    assert original['agreement'] == pytest.approx(100 - (20 + 14) / 2 * share)
    assert original['agreement_std'] == pytest.approx(6 / 2**0.5 * share)
    assert kd3['agreement'] == pytest.approx(100 - (0 + 30) / 2 * share)
    for row in (original, kd3):
        assert (row['weights'], row['macs']) == (5000, 70_000)
        assert (row['images_used'], row['seconds']) == (1500, 30.5)
        assert [run['seed'] for run in row['seeds']] == [0, 1]


def test_pictures_are_drawn_of_the_table(demo, trained, tmp_path, monkeypatch):
    asked = {}
    for name in ('draw_features', 'draw_run', 'plot_comparison', 'plot_readme_banner'):
        monkeypatch.setattr(
            f'mmdfkd.visualization.{name}',
            lambda *args, name=name, **more: asked.update({name: (*args, more)}) or ['x.png'],
        )
    read = 'mmdfkd.visualization.records.'
    monkeypatch.setattr(f'{read}training_images', lambda work_dir: Images(torch.arange(4).numpy()))
    monkeypatch.setattr(f'{read}read_selection', lambda work_dir: {})
    kept = torch.tensor([True, False, False, True]).numpy()
    monkeypatch.setattr(f'{read}chosen', lambda selection, size: kept)
    trainings, teacher = trained
    table = dict(quick=False, **demo.tabulate(trainings, teacher))
    demo.draw(table, tmp_path, teacher, tmp_path)

    _, bars, accuracy, texts = asked['plot_comparison']
    top, *students = table['rows']
    assert accuracy == top['accuracy'] and 'standard deviation of 2 seeds' in texts['note']
    for bar, row in zip(bars, students, strict=True):
        assert (bar['accuracy'], bar['std']) == (row['accuracy'], row['accuracy_std'])
        assert (bar['agreement'], bar['images']) == (row['agreement'], 1500)
    assert [bar['baseline'] for bar in bars] == [True, True, True, False]
    _, selected, rejected, *_, texts = asked['plot_readme_banner']
    assert (selected.tolist(), rejected.tolist()) == ([0, 3], [1, 2])
    assert texts['teacher'] == 'teacher, 5 k weights'


class Images:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)


def test_time_left_is_that_of_the_epochs_to_come(demo, monkeypatch):
    """Two epochs took 30 seconds after the first one was seen: six more take 90."""
    said, now = [], iter([100.0, 130.0])
    monkeypatch.setattr(demo.time, 'monotonic', lambda: next(now))
    line = SimpleNamespace(completed=0)
    bar = SimpleNamespace(tasks=[line], update=lambda task, completed, state: said.append(state))
    training = SimpleNamespace(first=None, epochs=10)
    for epoch in (2, 4):
        training.summary = dict(epoch=epoch, student_accuracy_last=50.0, finished=False)
        demo.show(bar, 0, training)
    assert said == ['epoch 2/10, 50.0 %', 'epoch 4/10, 50.0 %, 1 min 30 s left']


def test_each_training_has_its_own_seed(demo, plan, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr('subprocess.Popen', lambda command, **more: commands.append(command))
    for training in plan('--seed', 3, 5, '--out', tmp_path)[:2]:
        training.start()
    assert [command[command.index('--seed') + 1] for command in commands] == ['3', '5']
    assert all('--resume' in command and '--quick' not in command for command in commands)


def test_every_pair_has_all_configs(plan, demo):
    for pair in demo.PAIRS:
        trainings = plan('--pair', pair, '--seed', 0, 1)
        assert [t.row.key for t in trainings[::2]] == [row.key for row in demo.ROWS]
        assert {t.seed for t in trainings} == {0, 1}
        assert re.fullmatch(r'kd3_\w+_[\w-]+-half_1xb\d+-\d+e_digits', trainings[-1].config.stem)
        assert all(t.config.stem.count('noise') == (t.row.key == 'noise') for t in trainings)


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_reason_and_its_log(plan, tmp_path):
    training = plan('--quick', '--out', tmp_path)[0]
    training.work_dir.parent.mkdir(parents=True)
    training.work_dir.write_text('a file where the folder should be')
    training.start()
    training.process.wait()
    with pytest.raises(UsageError, match='Student, original data') as error:
        training.check()
    assert str(training.log) in str(error.value)


@pytest.mark.slow
def test_ctrl_c_ends_every_training_and_says_how_to_continue(tmp_path, ends):
    process = subprocess.Popen(
        [sys.executable, TOOL, '--quick', '--out', tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where these tests run in the background, a shell has told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if any(log.stat().st_size for log in tmp_path.glob('runs/*.log')):
            break  # a training is under way
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'interrupted: finished rows and checkpoints are kept' in errors
    assert ends(process.pid)
