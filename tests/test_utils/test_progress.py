# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import io

import pytest
from rich.console import Console

from mmdfkd.utils import progress
from mmdfkd.utils.progress import advancing, progress_bar, stop_bars, track


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that keeps what is written to it."""
    screen = io.StringIO()

    def console(*args, **kwargs):
        return Console(file=screen, force_terminal=True, width=100, color_system=None)

    monkeypatch.setattr(progress, 'Console', console)
    return screen


def test_track_yields_everything_and_nothing_else(capfd):
    assert list(track(range(5), 'Counting')) == [0, 1, 2, 3, 4]
    assert list(track(iter('ab'), 'No length')) == ['a', 'b']
    assert list(track([], 'Nothing')) == []
    assert capfd.readouterr() == ('', '')  # no terminal, no noise


def test_a_terminal_sees_count_and_time_left(terminal):
    bar = progress_bar(transient=False)
    with bar:
        task = bar.add_task('Working', total=8)
        bar.update(task, completed=3)
        bar.refresh()
    text = terminal.getvalue()
    assert 'Working' in text and '3/8' in text and 'left' in text


def test_what_has_a_length_is_counted_up_to_it(terminal):
    assert list(track('abc', 'Working')) == ['a', 'b', 'c']
    assert '0/3' in terminal.getvalue()


def test_a_bar_that_is_started_twice_is_stopped_once(terminal):
    bar = progress_bar()
    bar.start()
    with bar:
        pass
    assert progress._running == []


def test_only_the_main_process_draws(terminal, monkeypatch):
    monkeypatch.setattr(progress, 'is_main_process', lambda: False)
    assert list(track(range(3), 'Working')) == [0, 1, 2]
    assert terminal.getvalue() == ''


def test_an_error_in_the_loop_gets_out_and_ends_the_bar(terminal):
    with pytest.raises(ZeroDivisionError):
        for item in track(range(3), 'Working'):
            1 / item
    text = terminal.getvalue()
    assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')  # the cursor is shown again


def test_what_runs_inside_another_bar_is_a_line_of_it(terminal):
    with progress_bar(transient=False) as bar:
        bar.add_task('Epochs', total=2)
        with advancing('Round 1', 3) as advance:
            advance()
            bar.refresh()
            assert [task.description for task in bar.tasks] == ['Epochs', 'Round 1']
            assert bar.tasks[1].completed == 1
        assert list(track('ab', 'Inner')) == ['a', 'b']
        assert [task.description for task in bar.tasks] == ['Epochs']
    assert 'Round 1' in terminal.getvalue() and '1/3' in terminal.getvalue()
    assert progress._running == []


def test_bars_that_still_run_are_stopped(terminal):
    bars = [progress_bar() for _ in range(2)]
    for bar in bars:
        bar.start()
    stop_bars()
    assert not any(bar.live.is_started for bar in bars) and progress._running == []
