# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.device import utils as device_utils

from mmdfkd.models.algorithms import KD3

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


@pytest.fixture
def tool():
    return runpy.run_path(str(Path(__file__).parents[2] / 'tools' / TOOL))


@pytest.fixture
def model():
    return KD3(
        teacher=dict(checkpoint='mmdfkd://resnet8_digits'),
        student=dict(
            backbone=dict(
                type='CifarResNet', depth=8, widths=(4, 8, 16), in_channels=1, stem_stride=2
            )
        ),
    )


@pytest.fixture
def images():
    return torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)


def make_floor(kind, model):
    return kind(model, torch.optim.SGD(model.student.parameters(), lr=0.1))


def test_check_accepts_the_floor_and_trains_nothing(tool, model, images):
    floor = make_floor(tool['KD3Floor'], model)
    before = [parameter.clone() for parameter in floor.parameters]
    tool['check_floor'](model, floor, images)
    assert all(map(torch.equal, before, floor.parameters))

    floor.step(model.data_preprocessor.normalize(images))
    assert not any(map(torch.equal, before, floor.parameters))
    with pytest.raises(RuntimeError, match='step and its floor differ'):
        tool['check_floor'](model, floor, images)  # only one of the two has trained


def test_check_compares_gradients_too(tool, model, images):
    class Doubled(tool['KD3Floor']):
        def loss(self, images):
            loss = super().loss(images)
            return 2 * loss - loss.detach()  # the same number, twice the gradient

    with pytest.raises(RuntimeError, match=r'gradients 5\.0e-01 of their norm apart'):
        tool['check_floor'](model, make_floor(Doubled, model), images)


def test_check_sees_another_loss_weight(tool, model, images):
    floor = make_floor(tool['KD3Floor'], model)
    model.contrast.loss_weight = 0.02
    with pytest.raises(RuntimeError, match='differ: losses'):
        tool['check_floor'](model, floor, images)
