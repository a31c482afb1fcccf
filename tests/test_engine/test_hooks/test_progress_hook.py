# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import io
import logging
from types import SimpleNamespace

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from rich.console import Console

from mmdfkd.engine.hooks import ProgressHook
from mmdfkd.utils import progress


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that keeps what is written to it."""
    screen = io.StringIO()

    def console(*args, **kwargs):
        return Console(file=screen, force_terminal=True, width=100, color_system=None)

    monkeypatch.setattr(progress, 'Console', console)
    return screen


def runner(loop, **state):
    return SimpleNamespace(
        train_loop=loop.__new__(loop),
        model=SimpleNamespace(method='KD3'),
        logger=logging.getLogger('silent'),
        **state,
    )


def test_counts_epochs(terminal):
    state = runner(EpochBasedTrainLoop, epoch=3, max_epochs=40)
    hook = ProgressHook()
    hook.before_train(state)
    assert hook.bar.tasks[0].completed == 3  # resumed
    hook.after_train_iter(state, 0)
    hook.after_train_epoch(state)
    assert (hook.bar.tasks[0].completed, hook.bar.tasks[0].total) == (4, 40)
    hook.after_train(state)
    text = terminal.getvalue()
    assert 'KD3 (epochs)' in text and '4/40' in text
    assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')  # the cursor is back


def test_counts_iterations_now_and_then(terminal):
    state = runner(IterBasedTrainLoop, iter=0, max_iters=100)
    hook = ProgressHook()
    hook.before_train(state)
    for state.iter in range(26):
        hook.after_train_iter(state, state.iter)
        hook.after_train_epoch(state)
    assert hook.bar.tasks[0].completed == 21
    hook.after_train(state)
    assert 'KD3 (iterations)' in terminal.getvalue()


def test_an_interrupted_run_gives_the_cursor_back(terminal, monkeypatch):
    at_exit = []
    monkeypatch.setattr('atexit.register', at_exit.append)
    ProgressHook().before_train(runner(EpochBasedTrainLoop, epoch=0, max_epochs=2))
    (stop,) = at_exit
    stop()
    assert terminal.getvalue().endswith('\x1b[?25h')


def test_a_run_that_is_over_leaves_nothing_for_the_exit(terminal, monkeypatch):
    at_exit = []
    monkeypatch.setattr('atexit.register', at_exit.append)
    monkeypatch.setattr('atexit.unregister', at_exit.remove)
    hook = ProgressHook()
    for method in (hook.before_train, hook.after_train):
        method(runner(EpochBasedTrainLoop, epoch=0, max_epochs=2))
    assert at_exit == []


def test_silent_without_a_terminal(capfd):
    state = runner(EpochBasedTrainLoop, epoch=0, max_epochs=2)
    hook = ProgressHook()
    hook.before_train(state)
    hook.after_train_epoch(state)
    hook.after_train(state)
    assert capfd.readouterr() == ('', '')
