# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Every config trains, and its student is the one that was trained."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_check import check_config, load_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
DIGITS = [path for path in CONFIGS if '_digits' in path.stem]


def one_of_each(configs):
    """A part of the configs in which every word of their names occurs: networks, settings, data."""
    seen, chosen = set(), []
    for config in configs:
        words = {config.parent.name, *config.stem.split('_')}
        if words - seen:
            seen |= words
            chosen.append(config)
    return chosen


OTHERS = one_of_each(path for path in CONFIGS if path not in DIGITS)


# What a record must hold; the values of the first row are never empty.
KEYS = (
    'method student dataset student_accuracy_last student_accuracy_best student_params seed seconds '
    'images_per_second versions commit '
    'teacher teacher_accuracy teacher_params agreement'
).split()


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


@pytest.mark.slow
@pytest.mark.parametrize('config', OTHERS, ids=lambda path: path.stem)
def test_large_networks_train_at_toy_size(config, tmp_path, run_tool, monkeypatch):
    # mmengine formats the config six times, which takes longer than the training.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, False))
    run_tool('train.py', config, '--quick', '--work-dir', tmp_path / 'run')
    summary = json.loads((tmp_path / 'quick' / 'run' / 'summary.json').read_text())
    assert summary['finished'] and summary['epoch'] == 2


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_in_order(config):
    """No unknown key; networks that fit each other; a name after its folder, its own command."""
    cfg = load_config(config)
    check_config(cfg)
    init_default_scope(cfg.default_scope)
    model = cfg.model.to_dict()
    if 'teacher' in model:
        del model['teacher']['checkpoint']
        model['teacher'] = MODELS.build({'type': 'Classifier', **model['teacher']})
    algorithm = MODELS.build(model)
    assert set(algorithm.roles()) == set(cfg.optim_wrapper) - {'constructor'}

    method = config.parent.name
    assert method == 'teachers' or config.stem.startswith(f'{method}_')
    assert f'python tools/train.py {config.relative_to(ROOT)}' in config.read_text()
