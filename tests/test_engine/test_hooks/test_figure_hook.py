# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmdfkd.datasets import HybridDataset
from mmdfkd.engine.hooks import FigureHook


@pytest.fixture
def runner(tmp_path):
    """As much of a runner as the hook asks for."""
    return SimpleNamespace(
        rank=0,
        work_dir=str(tmp_path),
        logger=logging.getLogger('figures'),
        train_dataloader=SimpleNamespace(dataset='the pool'),
        model=SimpleNamespace(student=SimpleNamespace(num_classes=2)),
        val_loop=None,
    )


def test_it_draws_the_run_from_its_pool(runner, monkeypatch, caplog):
    monkeypatch.setattr('mmdfkd.visualization.draw_run', lambda *args: list(args))
    with caplog.at_level(logging.INFO):
        FigureHook().after_train(runner)
    assert caplog.messages == [f'Drew {runner.work_dir}, the pool.']


def test_a_run_that_leaves_nothing_to_draw(runner, monkeypatch, caplog):
    monkeypatch.setattr('mmdfkd.visualization.draw_run', lambda *_: [])
    with caplog.at_level(logging.INFO):
        FigureHook().after_train(runner)
    assert caplog.messages == ['Drew no figure.']


def test_the_pool_of_a_hybrid_set_are_its_collected_images(runner, monkeypatch, caplog):
    monkeypatch.setattr('mmdfkd.visualization.draw_run', lambda *args: list(args))
    runner.train_dataloader.dataset = dataset = object.__new__(HybridDataset)
    dataset.collected = 'what was collected'
    with caplog.at_level(logging.INFO):
        FigureHook().after_train(runner)
    assert caplog.messages == [f'Drew {runner.work_dir}, what was collected.']


def test_it_draws_when_the_others_have_written(train, monkeypatch, without_validation):
    there = []

    def draw_run(work_dir, pool):
        there.extend(path.name for path in Path(work_dir).iterdir())
        assert json.loads(Path(work_dir, 'summary.json').read_text())['finished']
        return []

    monkeypatch.setattr('mmdfkd.visualization.draw_run', draw_run)
    once = {'train_cfg.max_epochs': 1, 'default_hooks.figures': dict(type='FigureHook')}
    train(**once, **without_validation)
    assert {'selection.npz', 'student.pth', 'epoch_1.pth'} < set(there)


def test_it_first_keeps_what_the_algorithm_wants_drawn(runner, monkeypatch):
    runner.model.records = lambda: dict(adaptation_matrix=dict(matrix=np.eye(2)))
    seen = []

    def draw_run(work_dir, pool):
        with np.load(Path(work_dir, 'adaptation_matrix.npz')) as arrays:
            seen.append((arrays['matrix'].tolist(), arrays['classes'].tolist()))
        return []

    monkeypatch.setattr('mmdfkd.visualization.draw_run', draw_run)
    FigureHook().after_train(runner)
    assert seen == [([[1, 0], [0, 1]], ['0', '1'])]


def test_a_failure_is_a_warning_with_the_command_that_tries_again(runner, caplog):
    FigureHook().after_train(runner)  # the folder is empty: there is nothing to draw from
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f'vis_selection.py {runner.work_dir}' in record.getMessage()


def test_only_the_main_process_draws(runner, caplog):
    runner.rank = 1
    with caplog.at_level(logging.INFO):
        FigureHook().after_train(runner)
    assert caplog.records == []
