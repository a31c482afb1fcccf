# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Every config is in order; those of the digits train, and leave the student they trained.

Ablations take one step in ``test_config_steps.py``; a GAN alone is trained in
``test_gan_hook.py``.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
DIGITS = [
    path
    for path in CONFIGS
    if '_digits' in path.stem
    and 'ablation' not in path.parts
    and not path.stem.endswith('-gan_digits')
]

# What a record must hold; the second row where there is a teacher.
KEYS = (
    'method student dataset student_accuracy_last student_accuracy_best student_params seed '
    'seconds images_per_second versions commit'
).split()
KEYS_OF_TEACHER = 'teacher teacher_accuracy teacher_params agreement'.split()


def accuracy_of(printed):
    return float(re.findall(r'accuracy/top1: ([\d.]+)', printed)[-1])


@pytest.mark.slow
@pytest.mark.parametrize('config', DIGITS, ids=lambda path: path.stem)
def test_what_a_run_leaves(config, tmp_path, run_tool, monkeypatch):
    """Built, trained, recorded; epoch_2.pth and student.pth test alike."""
    monkeypatch.setattr('mmdfkd.apis.quick.IMAGES', 64)
    printed = run_tool('train.py', config, '--quick', '--work-dir', tmp_path / 'run')
    work_dir = tmp_path / 'quick' / 'run'

    summary = json.loads((work_dir / 'summary.json').read_text())
    cfg = load_config(config)
    keys = KEYS + KEYS_OF_TEACHER * ('teacher' in cfg.model)
    assert not [key for key in keys if summary[key] is None]
    assert set(KEYS_OF_TEACHER) <= set(summary)
    assert summary['finished'] and summary['epoch'] == 2
    assert summary['student_accuracy_last'] == pytest.approx(accuracy_of(printed), abs=1e-4)
    assert summary['method'] == cfg.model.type
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
    """No unknown key, a name after its folder, and in its head the command that runs it."""
    check_config(load_config(config))
    method = config.relative_to(ROOT / 'configs').parts[0]
    assert method == 'teachers' or config.stem.startswith(f'{method}_')
    assert f'python tools/train.py {config.relative_to(ROOT)}' in config.read_text()
