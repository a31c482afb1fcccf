# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.device import utils as device_utils
from mmengine.optim import OptimWrapper

from mmdfkd.registry import MODELS
from mmdfkd.utils.config_check import load_config

ROOT = Path(__file__).parents[2]
TOOL = 'analysis_tools/benchmark.py'
TINY = ('--batch', '4', '8', '--iterations', '2', '--pairs', '2', '--images', '32')


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setattr(device_utils, 'DEVICE', device_utils.DEVICE)  # the tool sets it


def test_tables_and_json_at_tiny_size(run_tool, tmp_path):
    printed = run_tool(TOOL, *TINY, '--json', tmp_path / 'numbers.json')
    result = json.loads((tmp_path / 'numbers.json').read_text())
    assert [row['batch'] for row in result['step']] == [4, 8]
    numbers = [
        value
        for table in ('step', 'selection', 'parts')
        for row in result[table]
        for value in row.values()
        if isinstance(value, float)
    ]
    assert len(numbers) == 2 * 8 + 2 * 3 + 5
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert 'Runner/bare' in printed and '--pairs 2' in printed
    assert result['machine']['threads'] == 1


def test_a_block_needs_enough_images(run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, *TINY, '--iterations', '5')
    assert 'takes 40 images, --images is 32' in capsys.readouterr().err


def test_a_pair_without_recipe(run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, *TINY, '--method', 'ZSKT', '--pair', 'lenet5')
    assert 'no recipe of ZSKT for --pair lenet5' in capsys.readouterr().err


def test_a_method_without_images(run_tool, tmp_path):
    tiny = ('--batch', '4', '--iterations', '2', '--pairs', '2', '--images', '32')
    path = tmp_path / 'numbers.json'
    run_tool(TOOL, *tiny, '--method', 'DFQ', '--pair', 'resnet8', '--json', path)
    result = json.loads(path.read_text())
    assert 'selection' not in result
    assert all(value > 0 for value in result['step'][0].values())


# The floors -----------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/analysis_tools'))
    return importlib.import_module('floors')


def recipe(method):
    """Model and optimisers of a method's digits config, the student a little off its start."""
    name = method.lower()
    (path,) = (ROOT / 'configs' / name).glob(f'{name}_resnet8_resnet8-half_1xb*e_digits.py')
    cfg = load_config(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    optim_wrapper = {
        role: OptimWrapper(torch.optim.SGD(parameters, lr=0.1))
        for role, parameters in trained(model).items()
    }
    data = dict(inputs=torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8))
    if hasattr(model, 'latent_shape'):
        data = dict(latent=torch.randn(8, *model.latent_shape))
    return model, optim_wrapper, data


def trained(model):
    return {role: torch.nn.ModuleList(parts).parameters() for role, parts in model.roles().items()}


METHODS = ['DAFL', 'DDAD', 'DFAD', 'DFQ', 'KD3', 'ZSKT']


@pytest.mark.parametrize('method', METHODS)
def test_check_accepts_the_floor_and_trains_nothing(tool, method):
    model, optim_wrapper, data = recipe(method)
    floor = tool.FLOORS[method](model, optim_wrapper)
    before = {role: [p.clone() for p in group] for role, group in floor.parameters.items()}
    tool.check_floor(model, floor, data)
    for role, group in floor.parameters.items():
        assert all(map(torch.equal, before[role], group))

    floor.step(floor.prepare(dict(data)))
    for role, group in floor.parameters.items():
        assert not all(map(torch.equal, before[role], group))
    with pytest.raises(RuntimeError, match='step and its floor differ'):
        tool.check_floor(model, floor, data)  # only one of the two has trained
    floor.follow(model)
    tool.check_floor(model, floor, data)


@pytest.mark.parametrize('method', METHODS)
def test_check_compares_gradients_too(tool, method):
    """A step of the same loss and another gradient."""

    class Doubled(tool.FLOORS[method]):
        def backward(self, loss):
            (2 * loss).backward()

    model, optim_wrapper, data = recipe(method)
    floor = Doubled(model, optim_wrapper)
    with pytest.raises(RuntimeError, match=r'gradients \(student 5\.0e-01'):
        tool.check_floor(model, floor, data)


def test_check_sees_another_loss_weight(tool):
    model, optim_wrapper, data = recipe('KD3')
    floor = tool.FLOORS['KD3'](model, optim_wrapper)
    model.contrast.loss_weight = 0.02
    with pytest.raises(RuntimeError, match='differ: losses'):
        tool.check_floor(model, floor, data)
