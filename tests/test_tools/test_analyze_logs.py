# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Comparing runs of several teachers, and runs that have only begun."""

import json

import pytest

from mmdfkd.visualization.runs import the_teacher

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
