# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json

import pytest

TOOL = 'analysis_tools/benchmark_switches.py'


def test_switches_are_compared_with_the_strict_step(run_tool, tmp_path):
    path = tmp_path / 'switches.json'
    printed = run_tool(
        *(TOOL, 'lenet5', '--batch', 4, '--rounds', 1, '--switches', 'all', '--json', path)
    )
    rows = json.loads(path.read_text())['rows']
    assert [row['switches'] for row in rows] == ['strict', 'all']
    assert rows[0]['step'] == rows[0]['teacher forward'] == 1.0
    assert rows[1]['step'] > 0 and rows[0]['step ms'] > rows[0]['forward ms'] > 0
    assert 'lenet5, batch 4' in printed


def test_ways_to_step_an_optimizer(run_tool):
    printed = run_tool(TOOL, 'lenet5', '--optimizers', '--rounds', 1)
    assert 'foreach' in printed and 'SGD' in printed and 'Adam' in printed


def test_an_unknown_pair_is_named(run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool(TOOL, 'vgg')
    assert "no pair 'vgg'" in capsys.readouterr().err
