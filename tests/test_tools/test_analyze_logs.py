# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Comparing runs of several teachers, and runs that have only begun."""

import json

import pytest

from mmdfkd.visualization.records import the_teacher

TOOL = 'analysis_tools/analyze_logs.py'


@pytest.fixture
def make_run(tmp_path):
    def make_run(name, values, teacher):
        folder = tmp_path / name / 'd' / 'vis_data'
        folder.mkdir(parents=True)
        records = [{'accuracy/top1': v, 'step': k} for k, v in enumerate(values, 1)]
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
        (tmp_path / name / 'summary.json').write_text(json.dumps({'teacher_accuracy': teacher}))
        return tmp_path / name

    return make_run


@pytest.mark.parametrize(('teachers', 'line'), [([99.5, 99.5], 99.5), ([99.5, 85.0], None)])
def test_a_teacher_is_drawn_where_it_taught_all(make_run, run_tool, monkeypatch, teachers, line):
    drawn = []
    monkeypatch.setattr('mmdfkd.visualization.plot_sweep', lambda *args: drawn.append(args))
    runs = [make_run(f'run{k}', [50, 60, 70], teacher) for k, teacher in enumerate(teachers)]
    run_tool(TOOL, *runs, '--out', 'x.png')
    ((_, curves, teacher, *_),) = drawn
    assert list(curves) == ['run0', 'run1'] and teacher == line
    assert the_teacher([]) is None


def test_a_run_that_has_only_begun(make_run, run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool(TOOL, make_run('young', [], None))
    assert 'has recorded nothing yet' in capsys.readouterr().err


def test_last_highest_and_lowest_value_of_a_run(make_run, run_tool):
    printed = run_tool(TOOL, make_run('a', [50, 70, 60], 99.5), make_run('b', [12.345678], 99.5))
    assert printed.splitlines() == [
        'a: last 60, highest 70, lowest 50 in 3 epochs',
        'b: last 12.35, highest 12.35, lowest 12.35 in 1 epochs',
    ]


def test_another_scalar_is_drawn_without_the_teacher(make_run, run_tool, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr('mmdfkd.visualization.plot_sweep', lambda *args: drawn.append(args))
    run = make_run('a', [], 99.5)
    lines = [json.dumps({'loss': 3.0 / k, 'epoch': k, 'step': 9 * k}) for k in (1, 2, 3)]
    lines.append(json.dumps({'accuracy/top1': 50, 'step': 3}))
    (run / 'd' / 'vis_data' / 'scalars.json').write_text('\n'.join(lines) + '\n')
    printed = run_tool(TOOL, run, '--key', 'loss', '--out', 'x.png')
    assert printed.startswith('a: last 1, highest 3, lowest 1 in 3 epochs')
    ((_, curves, teacher, _, label, unit),) = drawn
    assert curves == {'a': [(1, 3), (2, 1.5), (3, 1)]} and (teacher, label) == (None, 'loss')
    assert unit == 'epoch'


def test_rounds_and_iterations_are_counted_as_such(make_run, run_tool, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr('mmdfkd.visualization.plot_sweep', lambda *args: drawn.append(args))
    rounds, steps = make_run('rounds', [], 99.5), make_run('steps', [], 99.5)
    lines = [json.dumps({'x': k, 'round': k, 'step': k}) for k in (1, 2, 3)]
    (rounds / 'd/vis_data/scalars.json').write_text('\n'.join(lines) + '\n')
    lines = [json.dumps({'x': k, 'epoch': 1, 'iter': k, 'step': k}) for k in (20, 40)]
    (steps / 'd/vis_data/scalars.json').write_text('\n'.join(lines) + '\n')
    (steps / 'd/vis_data/config.py').write_text('train_cfg = dict(max_iters=40)\n')
    assert 'in 3 rounds' in run_tool(TOOL, rounds, '--key', 'x', '--out', 'x.png')
    assert 'at 2 iterations' in run_tool(TOOL, steps, '--key', 'x', '--out', 'x.png')
    assert [args[-1] for args in drawn] == ['round', 'iteration']
    with pytest.raises(SystemExit):
        run_tool(TOOL, rounds, steps, '--key', 'x', '--out', 'x.png')
    assert 'x is recorded by iteration and by round' in capsys.readouterr().err
