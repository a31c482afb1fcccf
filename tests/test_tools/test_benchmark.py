# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.device import utils as device_utils
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from PIL import Image

from mmdfkd.models.selectors import Selection
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[2]
TOOL = 'analysis_tools/benchmark.py'
TINY = ('--batch', '16', '--iterations', '2', '--pairs', '2', '--images', '64', '--round', '2')


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setattr(device_utils, 'DEVICE', device_utils.DEVICE)  # the tool sets it


def measure(run_tool, tmp_path, *args):
    path = tmp_path / 'numbers.json'
    printed = run_tool(TOOL, *args, *TINY, '--json', path)
    return printed, json.loads(path.read_text())


def numbers(rows):
    return [value for row in rows for value in row.values() if isinstance(value, float)]


def test_tables_and_json_at_tiny_size(run_tool, tmp_path):
    tables = ('step', 'selection', 'parts', 'evaluation')
    printed, result = measure(run_tool, tmp_path, 'KD3', 'dfq', '--only', *tables)
    assert [(row['method'], row['batch']) for row in result['step']] == [('KD3', 16), ('DFQ', 16)]
    assert set(result) == {'machine', *tables}
    found = {table: numbers(result[table]) for table in tables}
    assert [len(found[table]) for table in ('step', 'selection', 'parts')] == [2 * 9, 2 * 4, 17]
    assert all(math.isfinite(number) for table in found.values() for number in table)
    assert min(min(table) for table in found.values()) >= 0
    assert 'Runner/bare' in printed and '--pairs 2' in printed
    assert result['machine']['threads'] == 1


def test_plain_crops_are_crops(tool):
    parts = importlib.import_module('measuring.parts')
    images = torch.arange(1, 1 + 5 * 3 * 6 * 6).view(5, 3, 6, 6)
    for image, crop in zip(images, parts.crop_and_flip(images, padding=1), strict=True):
        padded = torch.nn.functional.pad(image, [1] * 4)
        windows = [padded[:, y : y + 6, x : x + 6] for y in range(3) for x in range(3)]
        assert any(crop.equal(w.float()) or crop.equal(w.flip(-1).float()) for w in windows)

    ramp = torch.arange(32.0).expand(40, 1, 32, 32)  # any window of it is a ramp, a flatter one
    resized = parts.resized_crop_and_flip(ramp)
    assert resized.min() >= 0 and resized.max() <= 31
    steps = resized[..., 4:-4].diff()
    torch.testing.assert_close(steps, steps[..., :1].expand_as(steps), atol=1e-4, rtol=0)
    slopes = steps[:, 0, 0, 0]
    assert slopes.abs().min() > 0.1 and slopes.abs().max() <= 1
    assert slopes.min() < 0 < slopes.max()


def test_shares_of_a_profile_make_a_whole(run_tool, tmp_path):
    _, result = measure(run_tool, tmp_path, 'KD', '--only', 'profile')
    shares = {row['part']: row['percent'] for row in result['profile']}
    assert sum(shares.values()) == pytest.approx(100)
    assert {'loader', 'preprocessor', 'optimiser student', 'hook LoggerHook'} < set(shares)
    assert max(shares, key=shares.get) == 'forward and backward'


def test_rounds_of_synthesis(run_tool, tmp_path):
    _, result = measure(run_tool, tmp_path, 'FastDFKD', 'KD', '--only', 'step', 'synthesis')
    (row,) = result['synthesis']  # KD makes no images
    assert (row['method'], row['steps']) == ('FastDFKD', 2)
    assert min(numbers(result['synthesis'])) > 0
    assert [row['method'] for row in result['step']] == ['FastDFKD', 'KD']


def test_packing(run_tool, tmp_path):
    _, result = measure(run_tool, tmp_path, 'KD', '--only', 'packing', '--files', '24')
    assert len(result['packing']) == 2
    assert min(numbers(result['packing'])) > 0


def test_whole_epochs(run_tool, tmp_path):
    modes = ('strict', 'fast, no teacher term', 'published')
    _, result = measure(
        run_tool, tmp_path, 'KD3', '--only', 'epoch', '--batch', '32', '--modes', *modes
    )
    assert [row['epoch'] for row in result['epoch']] == list(modes)
    assert all(len(numbers([row])) == 4 and min(numbers([row])) > 0 for row in result['epoch'])


def test_a_runner_that_does_nothing(tool, run_tool, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module('measuring.overhead'), 'BLOCK', 50)
    _, result = measure(run_tool, tmp_path, 'KD', '--only', 'overhead', '--pair', 'lenet5')
    first, later = (row['us/iteration'] for row in result['overhead'])
    assert 0 < later < 5 * first  # mmengine's own hooks: 50 times, since they copy what they keep


def test_growth_names_its_axes_and_is_drawn(tool, monkeypatch, tmp_path):
    growth = importlib.import_module('measuring.growth')
    sizes = dict(images=(50, 100), classes=(2, 5), batch=(4,), pixels=(64,))
    monkeypatch.setattr(growth, 'SIZES', sizes)
    args = SimpleNamespace(pairs=1, device='cpu')
    rows = list(
        growth.measure_growth(args, importlib.import_module('measuring.timing').Clock('cpu'))
    )
    assert {(row['axis'], row['size']) for row in rows} == {
        ('images', 50),
        ('images', 100),
        ('classes', 2),
        ('classes', 5),
        ('batch', 4),
        ('pixels', 64),
    }
    assert all(row['us'] == pytest.approx(row['size'] * row['us/each']) for row in rows)
    with Image.open(growth.draw_growth(tmp_path / 'growth.png', rows)) as picture:
        colours = {pixel for _, pixel in picture.convert('RGB').getcolors(100_000)}
    assert {(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)} <= colours


MEMORY = """
import json, sys
sys.path.insert(0, {tools!r})
from measuring import growth
growth.SIZES = dict(images=(100, 100_000))
print(json.dumps(list(growth.measure_memory({folder!r}))))
"""


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='Linux tells the memory')
def test_memory_does_not_hold_the_pool(tmp_path):
    """In a process of its own, since this one keeps what it frees once a Runner was here."""
    code = MEMORY.format(tools=str(ROOT / 'tools/analysis_tools'), folder=str(tmp_path))
    printed = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True)
    _, large = json.loads(printed.splitlines()[-1])  # a selection may have had its say before
    assert large['on disk'] == pytest.approx(293, abs=0.1)
    assert 5 < large['with logits and selection'] < 100  # two times 100,000 x 10 numbers are 7.6
    assert large['loader and sampler'] < 30
    assert not list(tmp_path.iterdir())


def test_a_block_needs_enough_images(run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, *TINY, '--iterations', '5')
    assert 'takes 80 images, --images is 64' in capsys.readouterr().err


def test_a_pair_without_recipe(run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, 'ZSKT', *TINY, '--pair', 'lenet5')
    assert 'no recipe of ZSKT for --pair lenet5' in capsys.readouterr().err


def test_a_method_that_is_not_known(run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(TOOL, 'DAFF', *TINY)
    assert 'METHOD DAFF is not known. Give any of CMI, CTKD' in capsys.readouterr().err


# The floors -----------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/analysis_tools'))
    return importlib.import_module('floors')


def recipe(method):
    """Model and optimisers of a method's digits config."""
    runners = importlib.import_module('measuring.runners')
    cfg = load_config(runners.find_recipe(method, 'resnet8'))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    optim_wrapper = {
        role: OptimWrapper(torch.optim.SGD(parameters, lr=0.1))
        for role, parameters in trained(model).items()
    }
    images = torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (16,))
    data = dict(inputs=images, label=labels, index=torch.arange(16))
    if method == 'HiDFD':
        model.remember_selection(Selection(data['index'], torch.ones(16), labels))
    if model.latent_shape:
        data = dict(latent=torch.randn(16, *model.latent_shape))
    return model, optim_wrapper, data


def trained(model):
    return {role: torch.nn.ModuleList(parts).parameters() for role, parts in model.roles().items()}


ADVERSARIAL = ['DAFL', 'DDAD', 'DFAD', 'DFQ', 'PREDFKD', 'ZSKT']
INVERSION = ['CMI', 'DeepInversion', 'FastDFKD']
METHODS = ['KD', 'STKD', 'CTKD', 'DFND', 'KD3', 'HiDFD', *ADVERSARIAL, *INVERSION]

# Roles that have a part in an iteration: of HiDFD that of its GAN, of a bank's methods that which
# learns from the bank.
MOVING = dict(HiDFD=['discriminator', 'generator'], **{method: ['student'] for method in INVERSION})


@pytest.mark.parametrize('method', METHODS)
def test_check_accepts_the_floor_and_trains_nothing(tool, method):
    model, optim_wrapper, data = recipe(method)
    floor = tool.FLOORS[method](model, optim_wrapper)
    before = {role: [p.clone() for p in group] for role, group in floor.parameters.items()}
    tool.check_floor(model, floor, data)
    for role, group in floor.parameters.items():
        assert all(map(torch.equal, before[role], group))

    floor.step(floor.prepare(dict(data)))
    for role in MOVING.get(method, before):
        assert not all(map(torch.equal, before[role], floor.parameters[role]))
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
    first = 'generator' if method == 'HiDFD' else 'student'
    with pytest.raises(RuntimeError, match=rf'gradients \({first} 5\.0e-01'):
        tool.check_floor(model, floor, data)


def test_check_sees_another_loss_weight(tool):
    model, optim_wrapper, data = recipe('KD3')
    floor = tool.FLOORS['KD3'](model, optim_wrapper)
    model.contrast.loss_weight = 0.02
    with pytest.raises(RuntimeError, match='differ: losses'):
        tool.check_floor(model, floor, data)


def test_the_published_loops_compute_the_same(tool):
    model, optim_wrapper, data = recipe('KD3')
    floors = [kind(model, optim_wrapper) for kind in (tool.KD3Floor, tool.PublishedKD3)]
    tool.check_floor(model, floors[1], data)
    images = torch.linspace(0.1, 3, 48).view(3, 16, 1, 1, 1) * torch.randn(3, 16, 1, 32, 32)
    selected = [floor.select(iter(images)) for floor in floors]
    with torch.no_grad():
        logits = {
            f'{name}_logits': getattr(model.eval(), name)(images.flatten(0, 1))
            for name in ('teacher', 'student')
        }
    model.selector.teacher_weight, model.selector.min_selected = 0.5, 0
    expected = model.selector(**logits, epoch=1, max_epochs=2).indices
    assert 0 < len(expected) < 48
    assert all(torch.equal(indices, expected) for indices in selected)


@pytest.mark.parametrize('method', INVERSION)
def test_rounds_make_the_same_images(tool, method):
    model, optim_wrapper, _ = recipe(method)
    model.batch_size = 16
    floor = tool.FLOORS[method](model, optim_wrapper)
    tool.check_round(model, floor)
    floor.model.iterations = 2
    floor.synthesize()  # fills the bank, moves averages and the meta generator
    with pytest.raises(RuntimeError, match='round of synthesis and its floor differ'):
        if method == 'DeepInversion':  # nothing of it outlives a round
            model.bn_statistics.loss_weight *= 1.5
        tool.check_round(model, floor)
    if method != 'DeepInversion':
        model.load_state_dict(floor.model.state_dict())
        tool.check_round(model, floor)


def test_nothing_against_something_is_far_apart(tool):
    base = importlib.import_module('floors.base')
    ones = torch.ones(2)
    assert base.apart([None], [None]) == 0
    assert base.apart([ones], [None]) > 1e30
    assert base.apart([None], [ones]) == 1
    assert base.apart([1.1 * ones, ones], [ones, ones]) == pytest.approx(0.1 / 2**0.5, rel=1e-5)


def test_error_of_a_ratio_is_how_far_medians_scatter(tool):
    timing = importlib.import_module('measuring.timing')
    torch.manual_seed(0)
    samples = (1.05 + 0.04 * torch.randn(2000, 25)).tolist()
    bare = [1.0] * 25
    medians = torch.tensor([timing.ratio(sample, bare) for sample in samples])
    errors = torch.tensor([timing.error(sample, bare) for sample in samples])
    assert errors.mean().item() == pytest.approx(medians.std().item(), rel=0.1)
    assert timing.error([2.0] * 7, [1.0] * 7) == 0


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--pairs', '0'], '--pairs 0: give 1 or more'),
        (['--iterations', '0'], '--iterations 0: give 1 or more'),
        (['--figure', 'growth.png'], 'it draws --only growth'),
        (['--only', 'growth', '--figure', 'growth.jpg'], 'a file ending in .png'),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(run_tool, capsys, options, words):
    with pytest.raises(SystemExit):
        run_tool(TOOL, *options)
    assert words in capsys.readouterr().err


def test_a_table_without_rows_says_so(run_tool):
    printed = run_tool(TOOL, 'KD', '--only', 'synthesis', *TINY)
    assert 'Round of synthesis: there is none with KD.' in printed
