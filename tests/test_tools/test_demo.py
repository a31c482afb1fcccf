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


def test_every_pair_has_all_configs(plan, demo):
    for pair in demo.PAIRS:
        trainings = plan('--pair', pair, '--seed', 0, 1)
        assert [t.row.key for t in trainings[::2]] == [row.key for row in demo.ROWS]
        assert {t.seed for t in trainings} == {0, 1}
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
