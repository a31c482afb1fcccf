# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Every config trains, and its student is the one that was trained."""

import json
import re
from pathlib import Path

import pytest
import torch

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils.config_check import check_config, load_config

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[1] / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
# What a record must hold; the values of the first row are never empty.
KEYS = (
    'method student dataset student_accuracy_last student_accuracy_best student_params seed seconds '
    'images_per_second versions commit '
    'teacher teacher_accuracy teacher_params agreement'
).split()


def accuracy_of(printed):
    return float(re.findall(r'accuracy/top1: ([\d.]+)', printed)[-1])


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_at_toy_size(config, tmp_path, run_tool, monkeypatch):
    """Built, trained, recorded; epoch_2.pth and student.pth test alike."""
    monkeypatch.setattr('mmdfkd.apis.quick.IMAGES', 64)
    printed = run_tool('train.py', config, '--quick', '--work-dir', tmp_path / 'run')
    work_dir = tmp_path / 'quick' / 'run'

    summary = json.loads((work_dir / 'summary.json').read_text())
    cfg = load_config(config)
    assert not set(KEYS) - set(summary)
    assert summary['finished'] and summary['epoch'] == 2
    assert summary['student_accuracy_last'] == pytest.approx(accuracy_of(printed), abs=1e-4)
    assert summary['method'] == cfg.model.type
    assert (summary['teacher'] is not None) == ('teacher' in cfg.model)
    student = load_classifier(work_dir / 'student.pth')
    assert summary['student_params'] == sum(p.numel() for p in student.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in student.state_dict().values())

    # The record's config has the toy data: the numbers have to be the same again.
    resolved = work_dir / config.name
    for checkpoint in ('student.pth', 'epoch_2.pth'):
        printed = run_tool(
            'test.py', resolved, work_dir / checkpoint, '--work-dir', tmp_path / checkpoint
        )
        assert accuracy_of(printed) == pytest.approx(summary['student_accuracy_last'], abs=1e-4)


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_in_order(config):
    """No unknown key, a name after its folder, and its own path in the command it shows."""
    check_config(load_config(config))
    method = config.parent.name
    assert method == 'teachers' or config.stem.startswith(f'{method}_')
    shown = config.relative_to(Path(__file__).parents[1])
    assert f'python tools/train.py {shown}' in config.read_text()
