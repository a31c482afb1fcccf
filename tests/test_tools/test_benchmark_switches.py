# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib
import json
from pathlib import Path

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


@pytest.mark.parametrize('option', ['--rounds', '--iterations', '--batch', '--threads'])
def test_numbers_that_are_too_small_are_named(run_tool, capsys, option):
    with pytest.raises(SystemExit):
        run_tool(TOOL, 'lenet5', option, 0)
    assert f'{option} 0: give 1 or more' in capsys.readouterr().err


@pytest.fixture
def seconds(monkeypatch):
    """Lets comparisons find given seconds, one dict for each."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / 'tools/analysis_tools'))
    timing, given = importlib.import_module('measuring.timing'), []
    monkeypatch.setattr(
        timing,
        'compare',
        lambda clock, rounds, **actions: {n: [s] * rounds for n, s in given.pop(0).items()},
    )
    return given


def test_ratios_are_to_the_strict_variant_and_times_those_of_one_step(run_tool, tmp_path, seconds):
    seconds += [dict(strict=0.2, bf16=0.1), dict(strict=0.8, bf16=0.2)]
    path = tmp_path / 'switches.json'
    sizes = ('--batch', 4, '--rounds', 1, '--iterations', 2, '--json', path)
    run_tool(TOOL, 'lenet5', '--switches', 'bf16', *sizes)
    strict, half = json.loads(path.read_text())['rows']
    assert (half['teacher forward'], half['step']) == (0.5, 0.25)
    assert (half['forward ms'], half['step ms']) == (50, 100)
    assert (strict['forward ms'], strict['step ms']) == (100, 400)


def test_optimizers_are_compared_with_the_loop(run_tool, tmp_path, seconds):
    seconds += [dict(loop=0.4, foreach=0.2, fused=0.1)] * 2
    path = tmp_path / 'optimizers.json'
    run_tool(TOOL, 'lenet5', '--optimizers', '--rounds', 1, '--iterations', 2, '--json', path)
    sgd, adam = json.loads(path.read_text())['rows']
    assert (sgd['optimizer'], adam['optimizer']) == ('SGD', 'Adam')
    for row in (sgd, adam):
        assert (row['loop'], row['foreach'], row['fused'], row['loop ms']) == (1, 0.5, 0.25, 200)
