# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


def test_rounds_of_cmi_are_compared_over_as_many_negatives(
    methods, run_tool, tmp_path, monkeypatch
):
    bank = importlib.import_module('mmdfkd.models.modules.feature_bank').FeatureBank
    draw, drawn, counting = bank.draw, [], []

    def counted_draw(self, count):
        rows = draw(self, count)
        drawn.extend([len(rows)] * bool(counting))
        return rows

    monkeypatch.setattr(bank, 'draw', counted_draw)
    compare = methods.compare

    def counted(*args, **actions):
        counting.append(True)  # the check before it begins with banks as they are
        return compare(*args, **actions)

    monkeypatch.setattr(methods, 'compare', counted)
    measure(run_tool, tmp_path, 'CMI', '--only', 'synthesis')
    assert len(drawn) == 3 * 3 * 2  # three kinds, three blocks each, two steps a round
    assert len(set(drawn)) == 1 and drawn[0] > 3 * 16  # more than all of it added


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


def test_the_authors_optimiser_is_the_same_in_all_modes(tool, run_tool, tmp_path, monkeypatch):
    """Ours is fused in fast modes; theirs goes through parameters as torch does by itself."""
    epochs = importlib.import_module('measuring.epochs')
    found = []

    def look(model, floor, data):
        (optimizer,) = floor.optimizers.values()
        (group,) = optimizer.param_groups
        assert [*map(id, group['params'])] == [*map(id, floor.parameters['student'])]
        found.append({name: value for name, value in group.items() if name != 'params'})

    monkeypatch.setattr(epochs, 'check_floor', look)
    sizes = ('--batch', '32', '--modes', 'strict', 'fast')
    measure(run_tool, tmp_path, 'KD3', '--only', 'epoch', *sizes)
    strict, fast = found
    assert strict == fast and fast['fused'] is None and fast['lr'] > 0


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


def test_memory_is_that_of_a_process_which_gives_it_back(benchmark, monkeypatch):
    """This one keeps what it frees, and one that is forked would inherit that."""
    monkeypatch.setattr(os, 'mark', 'inherited', raising=False)
    assert benchmark.in_new_process(eval, 'getattr(__import__("os"), "mark", "new")') == 'new'
    asked = []
    monkeypatch.setattr(benchmark, 'in_new_process', lambda *args: asked.append(args))
    args = benchmark.parse_args(['KD', '--only', 'memory'])
    assert [name for name, *_ in benchmark.tables(args, None, 'folder', ['KD'])] == ['memory']
    assert asked == [(benchmark.measure_memory, 'folder')]


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
        (['--round', '0'], '--round 0: give 1 or more'),
        (['--batch', '128', '-5'], '--batch -5: give 1 or more'),
        (['--batch', '0'], '--batch 0: give 1 or more'),
        (['--only', 'packing', '--files', '5'], '--files 5: give 6 or more'),
        (['--figure', 'growth.png'], 'it draws --only growth'),
        (['--only', 'growth', '--figure', 'growth.jpg'], 'a file ending in .png'),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(run_tool, capsys, options, words):
    with pytest.raises(SystemExit):
        run_tool(TOOL, *options)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--files', '5'], '--files 5: give 6 or more'),
        (['--pairs', '0'], '--pairs 0: give 1 or more'),
        (['--memory', '100', '0'], '--memory 0: give 1 or more'),
    ],
)
def test_mistakes_about_data_are_told_before_anything_is_measured(run_tool, capsys, options, words):
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/benchmark_data.py', *options)
    assert words in capsys.readouterr().err


def test_a_table_without_rows_says_so(run_tool):
    printed = run_tool(TOOL, 'KD', '--only', 'synthesis', *TINY)
    assert 'Round of synthesis: there is none with KD.' in printed


# Clocks and units -----------------------------------------------------------------------------


@pytest.fixture
def timing(tool):
    return importlib.import_module('measuring.timing')


@pytest.fixture
def benchmark(tool):
    return importlib.import_module('benchmark')


class Watch:
    """A clock that stands still unless something takes time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds

    def time(self, action):
        start = self()
        action()
        return self() - start


def test_a_ratio_is_the_median_over_pairs(timing):
    """2, 3 and 10: neither their mean, 5, nor the ratio of the medians, 4.5."""
    assert timing.ratio([2.0, 9.0, 20.0], [1.0, 3.0, 2.0]) == 3
    assert timing.median([1.0, 2.0, 9.0]) == 2


def test_actions_take_turns_and_their_first_round_does_not_count(timing):
    watch, turns = Watch(), []

    def action(name):
        turns.append(name)
        watch.spend(len(turns))

    found = timing.compare(watch, 2, a=lambda: action('a'), b=lambda: action('b'))
    assert turns == ['a', 'b'] * 3 and found == dict(a=[3, 5], b=[4, 6])


def test_only_one_thread_is_timed_by_the_processor(timing, monkeypatch):
    names = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, 'get_num_threads', lambda threads=threads: threads)
        names.append(timing.Clock('cpu').name)
    assert names == ['processor time', 'wall clock']


@pytest.mark.parametrize(('block', 'times'), [(2, [2, 2]), (None, [1004])])
def test_a_runner_is_timed_without_its_rivals(timing, block, times):
    """Each iteration takes a second, the selection before them a thousand."""
    watch = Watch()
    rivals = dict(bare=lambda: watch.spend(10))
    hook = timing.InterleaveHook(watch, block, rivals, lambda: watch.spend(100))
    hook.before_train(None)
    watch.spend(1000)
    hook.before_train_epoch(None)
    for index in range(4):
        watch.spend(1)
        hook.after_train_iter(None, index)
    hook.after_train_epoch(None)
    assert hook.times == dict(runner=times, bare=[10] * len(times))


def test_time_of_a_part_inside_another_counts_there_only(tool):
    watch = Watch()
    stopwatch = importlib.import_module('measuring.profiling').Stopwatch(watch)
    stopwatch.enter('outer')
    watch.spend(3)
    stopwatch.enter('inner')
    watch.spend(2)
    stopwatch.leave()
    watch.spend(1)
    stopwatch.leave()
    watch.spend(7)
    assert stopwatch.seconds == dict(outer=4, inner=2)


@pytest.fixture
def methods(tool):
    return importlib.import_module('measuring.methods')


@pytest.fixture
def stand_in(methods, monkeypatch):
    """Puts a Runner and a floor that do nothing in place of those of a method."""
    model = SimpleNamespace(
        iterations=7,
        warmup_rounds=0,
        selector=SimpleNamespace(),
        data_preprocessor=lambda data: dict(inputs=None),
    )
    model.eval = lambda: model
    runner = SimpleNamespace(
        model=model,
        optim_wrapper={},
        build_optim_wrapper=lambda wrapper: wrapper,
        train_dataloader=SimpleNamespace(dataset=Pool()),
        register_hook=lambda hook: None,
        train=lambda: None,
    )
    floor = SimpleNamespace(
        model=SimpleNamespace(), synthesize=None, follow=len, prepare=lambda data: data
    )
    monkeypatch.setattr(methods, 'build_runner', lambda *args, **more: runner)
    monkeypatch.setattr(methods, 'FLOORS', {'KD': lambda *args: floor})
    for name in ('check_floor', 'check_round'):
        monkeypatch.setattr(methods, name, lambda *args: None)


class Pool:
    def __len__(self):
        return 64

    def __getitems__(self, part):
        return {}


def test_units_and_ratios_of_a_step(methods, stand_in, monkeypatch):
    """Of blocks of two steps with 16 images each; the first and the last one do not count."""
    times = dict(
        runner=[99, 0.4, 0.6, 0.5, 99],
        bare=[99, 0.1, 0.3, 0.2, 99],
        bare_data=[99, 0.1, 0.2, 0.25, 99],
        train_step=[99, 0.3, 0.3, 0.3, 99],
    )
    monkeypatch.setattr(methods, 'InterleaveHook', lambda *args: SimpleNamespace(times=times))
    args = SimpleNamespace(device='cpu', iterations=2, pairs=3)
    row = methods.measure_step(args, None, '', 'KD', 16)
    assert row.pop('+-') > 0
    assert row == dict(method='KD', batch=16) | {
        'Runner/bare': pytest.approx(2.5),  # of 4, 2, 2.5
        'Runner/(bare+data)': pytest.approx(3),  # of 4, 3, 2
        'train_step/bare': pytest.approx(1.5),  # of 3, 1, 1.5
        'Runner/train_step': pytest.approx(5 / 3),  # of 4/3, 2, 5/3
        'bare ms': pytest.approx(100),
        'train_step ms': pytest.approx(150),
        'Runner ms': pytest.approx(250),
        'Runner us/image': pytest.approx(15625),
    }


def test_units_and_ratios_of_a_round(methods, stand_in, monkeypatch):
    times = dict(complete=[0.4, 0.5, 0.6], method=[0.2, 0.3, 0.3], bare=[0.1, 0.1, 0.2])
    monkeypatch.setattr(methods, 'compare', lambda *args, **actions: times)
    args = SimpleNamespace(images=64, iterations=2, pairs=3, round=None)
    row = methods.measure_synthesis(args, None, '', 'KD', 16)
    assert row.pop('+-') > 0
    assert row == dict(method='KD', batch=16, steps=7) | {
        'round/bare': pytest.approx(4),  # of 4, 5, 3
        'synthesize/bare': pytest.approx(2),  # of 2, 3, 1.5
        'bare ms': pytest.approx(100),
        'round ms': pytest.approx(500),
        'images/s': pytest.approx(32),
    }


def test_units_and_ratios_of_a_selection(methods, stand_in, monkeypatch):
    """Of a pool of 64 images."""
    times = dict(
        ours=[0.003, 0.006, 0.002],
        bare=[0.001, 0.001, 0.002],
        ours_first=[0.008] * 3,
        bare_first=[0.002] * 3,
    )
    monkeypatch.setattr(methods, 'compare', lambda *args, **actions: times)
    args = SimpleNamespace(batch=[16], images=64, pairs=3)
    found = [
        (row['ours/bare'], row['ours us/image'], row['bare us/image'])
        for row in methods.measure_selection(args, None, '')
    ]
    assert found[0] == pytest.approx((3, 3000 / 64, 1000 / 64))  # of 3, 6, 1
    assert found[1] == pytest.approx((4, 8000 / 64, 2000 / 64))


def test_units_of_growth_and_its_picture(tool, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    growth, figures = importlib.import_module('measuring.growth'), []
    monkeypatch.setattr(growth, 'SIZES', dict(classes=(2, 8)))
    times = iter([{'loss': [0.001], 'sum': [0.1]}, {'loss': [0.003], 'sum': [0.4]}])
    monkeypatch.setattr(growth, 'compare', lambda *args, **actions: next(times))
    rows = list(growth.measure_growth(SimpleNamespace(pairs=1, device='cpu'), None))
    assert [(row['us'], row['us/each']) for row in rows[::2]] == [(1000, 500), (3000, 375)]
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k))
    )
    growth.draw_growth(tmp_path / 'growth.png', rows)
    page, axes = figures[0].axes
    proportional, measured, _, other = axes.lines
    legend = dict(zip(('loss', 'sum'), page.lines, strict=True))
    assert [text.get_text() for text in page.texts[-2:]] == list(legend)
    assert legend['loss'].get_color() == measured.get_color()
    assert legend['sum'].get_color() == other.get_color() != measured.get_color()
    assert np.allclose(measured.get_xydata(), [(2, 1), (8, 3)])  # milliseconds
    assert np.allclose(proportional.get_xydata(), [(2, 0.75), (8, 3)])
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ('log', 'log', 'classes')


def test_overhead_is_that_of_an_iteration(tool, monkeypatch):
    """Blocks of 250; the first of the first million and of the second do not count."""
    overhead, hooks = importlib.import_module('measuring.overhead'), []
    runner = SimpleNamespace(
        model=SimpleNamespace(),
        register_hook=hooks.append,
        train=lambda: hooks[0].times.extend([9, 0.25, 0.25, 9, 0.5, 0.5]),
    )
    monkeypatch.setattr(overhead, 'build_runner', lambda *args: runner)
    args = SimpleNamespace(pairs=2, device='cpu')
    rows = list(overhead.measure_overhead(args, None, ''))
    assert [row['us/iteration'] for row in rows] == pytest.approx([1000, 2000])


def test_rates_of_packing(benchmark, monkeypatch):
    data = importlib.import_module('benchmark_data')
    rows = [
        data.Row(f'pack {size} JPEG', '', 4.0, 2.0, 2.5, 1.0, 1.15)
        for size in ('64 x 64', '500 x 375')
    ]
    monkeypatch.setattr(benchmark, 'measure_packing', lambda settings, folder: rows)
    small, large = benchmark.measure_packing_rate(SimpleNamespace(files=60, pairs=1), Path())
    assert (small['images/s'], small['bare images/s'], small['ours/bare']) == (15, 30, 2.5)
    assert (large['images/s'], large['bare images/s']) == (2.5, 5)


def test_cost_of_data_is_compared_pair_by_pair(tool, monkeypatch):
    data = importlib.import_module('benchmark_data')
    costs = iter([(2, 1), (1, 1), (6, 4), (2, 1), (3, 9), (3, 3)])  # ours and bare in turn
    monkeypatch.setattr(data, 'cost', lambda function: next(costs))
    row = data.compare('what', 'floor', 1.5, lambda: None, lambda: None, 3)
    assert row == ('what', 'floor', 3, 2, 2, 3, 1.5)  # ratios 2, 3, 1; of the wall 1, 4, 3


def test_cost_is_that_of_child_processes_too(tool):
    data, said = importlib.import_module('benchmark_data'), []
    code = 'import time; sum(range(3_000_000)); print(time.process_time())'
    spent, wall = data.cost(
        lambda: said.append(subprocess.check_output([sys.executable, '-c', code]))
    )
    assert 0 < 0.9 * float(said[0]) < spent and wall > 0


def test_peaks_of_memory_are_in_mebibytes(tool, tmp_path, monkeypatch):
    data = importlib.import_module('benchmark_data')

    def run(*args, **more):
        (tmp_path / 'm').mkdir()
        return SimpleNamespace(stdout='2048 1024\n')  # as Linux counts, in KiB

    monkeypatch.setattr(data.subprocess, 'run', run)
    args = SimpleNamespace(memory=[3], workers=1)
    assert data.measure_memory(args, tmp_path) == [(3, 2, 1)]
    assert len(list((tmp_path / 'many' / '0000').iterdir())) == 3


def test_as_many_images_are_packed_as_are_said(tool, tmp_path, monkeypatch):
    data, packed = importlib.import_module('benchmark_data'), []

    def run(*args, **more):
        (tmp_path / 'm').mkdir()
        packed.append(len([*(tmp_path / 'many').rglob('*.jpg')]))
        return SimpleNamespace(stdout='2048 1024\n')

    monkeypatch.setattr(data.subprocess, 'run', run)
    args = SimpleNamespace(memory=[3000, 1500, 1500], workers=1)
    found = data.measure_memory(args, tmp_path)
    assert packed == [count for count, *_ in found] == [1500, 1500, 3000]
