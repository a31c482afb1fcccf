# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What tools/train.py makes of its command line, and where tools/test.py writes; no training."""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from mmdfkd.engine import DistillRunner
from mmdfkd.utils import UsageError

ROOT = Path(__file__).parents[2]
KD = ROOT / 'configs/kd/kd_resnet8_resnet8-half_1xb64-60e_digits.py'


@pytest.fixture
def tool(monkeypatch):
    """The script as a module."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    spec = importlib.util.spec_from_file_location('train_tool', ROOT / 'tools/train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def configure(tool, tmp_path, monkeypatch):
    """The config of a command line, as ``(resume, load_from)``."""

    def make(*args):
        argv = ['train.py', str(KD), '--work-dir', str(tmp_path), *args]
        monkeypatch.setattr(sys, 'argv', argv)
        cfg = tool.make_config(tool.parse_args())
        return cfg.resume, cfg.load_from

    return make


def test_resuming(configure, tmp_path):
    start = ['--cfg-options', 'load_from=start.pth']
    assert configure(*start) == (False, 'start.pth')
    assert configure('--resume') == (True, None)
    assert configure('--resume', *start) == (False, 'start.pth')
    assert configure('--resume', 'epoch_3.pth', *start) == (True, 'epoch_3.pth')
    (tmp_path / 'last_checkpoint').touch()
    assert configure('--resume', *start) == (True, None)


@pytest.fixture
def cfg_of(tool, tmp_path, monkeypatch):
    """The config of a command line."""

    def make(*args, config=KD):
        argv = ['train.py', str(config), '--work-dir', str(tmp_path / 'run'), *args]
        monkeypatch.setattr(sys, 'argv', argv)
        return tool.make_config(tool.parse_args())

    return make


def test_a_seed_takes_the_place_of_the_configs_and_of_nothing_else(cfg_of):
    options = ['--cfg-options', 'randomness.seed=5', 'randomness.deterministic=True']
    assert cfg_of(*options).randomness == dict(seed=5, deterministic=True)
    assert cfg_of('--seed', '0', *options).randomness == dict(seed=0, deterministic=True)


def test_switches_of_validation_precision_and_learning_rates(cfg_of):
    plain, switched = cfg_of(), cfg_of('--no-validate', '--amp', '--auto-scale-lr')
    kinds = [cfg.optim_wrapper.student.get('type') for cfg in (plain, switched)]
    assert kinds == [None, 'AutocastOptimWrapper']
    assert plain.val_cfg and not plain.auto_scale_lr.get('enable') and switched.auto_scale_lr.enable
    assert switched.val_cfg is switched.val_dataloader is switched.val_evaluator is None


@pytest.mark.parametrize(
    ('switches', 'expected'),
    [
        ([], (True, True)),
        (['--no-pin-memory'], (False, True)),
        (['--no-persistent-workers'], (True, False)),
    ],
)
def test_switches_of_dataloaders(cfg_of, monkeypatch, switches, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = cfg_of(*switches, '--cfg-options', 'val_dataloader.num_workers=2')
    loader = cfg.val_dataloader
    assert (loader.pin_memory, loader.persistent_workers) == expected
    assert cfg.train_dataloader.pin_memory is expected[0]
    assert not cfg.train_dataloader.persistent_workers  # of which there are none


def test_switches_of_dataloaders_overrule_the_config(cfg_of):
    stated = ['val_dataloader.pin_memory=True', 'val_dataloader.persistent_workers=True']
    switches = ['--no-pin-memory', '--no-persistent-workers', '--cfg-options', *stated]
    loader = cfg_of(*switches, 'val_dataloader.num_workers=2').val_dataloader
    assert (loader.pin_memory, loader.persistent_workers) == (False, False)


def test_where_a_run_goes(tool, tmp_path, monkeypatch):
    """What the command line says counts, else what the config says, else the config's name."""
    monkeypatch.chdir(tmp_path)

    def goes(*args):
        monkeypatch.setattr(sys, 'argv', ['train.py', str(KD), *args])
        return tool.make_config(tool.parse_args()).work_dir

    own = ['--cfg-options', 'work_dir=own']
    assert goes() == f'work_dirs/{KD.stem}' and Path('work_dirs', KD.stem).is_dir()
    assert goes(*own) == 'own' and goes('--work-dir', 'mine', *own) == 'mine'
    Path('file').touch()
    with pytest.raises(UsageError, match='file/run cannot be made .*--work-dir'):
        goes('--work-dir', 'file/run')


def test_a_misspelt_key_is_refused_before_anything_is_made(cfg_of, tmp_path):
    with pytest.raises(UsageError, match=r'model\.alphas'):
        cfg_of('--cfg-options', 'model.alphas=0.5')
    assert not list(tmp_path.iterdir())


def test_learning_rates_need_the_batch_size_they_belong_to(cfg_of, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(KD)!r}\nauto_scale_lr = dict(_delete_=True)\n')
    with pytest.raises(UsageError, match='does not say which batch size'):
        cfg_of('--auto-scale-lr', config=config)


def test_the_hint_of_an_interrupted_run(run_tool, tmp_path, monkeypatch, capsys):
    def interrupt(cfg):
        Path(cfg.work_dir, 'last_checkpoint').write_text('epoch_3.pth')
        raise KeyboardInterrupt

    monkeypatch.setattr(DistillRunner, 'from_cfg', interrupt)
    given = [KD, '--work-dir', tmp_path / 'a run', '--seed', 3]
    command = f"{ROOT}/tools/train.py {KD} --work-dir '{tmp_path}/a run' --seed 3 --resume"
    for more in ([], ['--resume']):
        with pytest.raises(SystemExit):
            run_tool('train.py', *given, *more)
        said = capsys.readouterr().err.strip()
        assert said == f'interrupted: kept epoch_3.pth. Continue with: python {command}'


def test_the_hint_names_no_checkpoint_where_there_is_none(run_tool, tmp_path, monkeypatch, capsys):
    """Nor a command where a launcher started the processes."""
    written = []

    def interrupt(cfg):
        if written:
            Path(cfg.work_dir, 'last_checkpoint').write_text(written[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(DistillRunner, 'from_cfg', interrupt)
    given = ['train.py', KD, '--work-dir', tmp_path / 'run']
    for more, said in (
        ([], 'no checkpoint was written yet; start again.'),
        (['--launcher', 'pytorch'], 'kept epoch_3.pth. The same command with --resume continues.'),
    ):
        with pytest.raises(SystemExit):
            run_tool(*given, *more)
        assert capsys.readouterr().err.strip() == f'interrupted: {said}'
        written.append('epoch_3.pth')


def test_what_the_test_tool_makes_of_its_command_line(run_tool, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(DistillRunner, 'from_cfg', lambda cfg: (seen.append(cfg), Mock())[1])
    options = [
        '--cfg-options',
        'resume=True',
        'load_from=start.pth',
        'test_dataloader.batch_size=7',
    ]
    run_tool('test.py', KD, 'student.pth', *options)
    run_tool('test.py', KD, 'student.pth', '--work-dir', tmp_path, '--out', 'x.json', *options)
    run_tool('test.py', KD, 'student.pth', '--show-dir', 'shown', '--launcher', 'slurm')
    assert [cfg.work_dir for cfg in seen[:2]] == [f'work_dirs/{KD.stem}/test', str(tmp_path)]
    assert all((cfg.load_from, cfg.resume) == ('student.pth', False) for cfg in seen)
    assert [cfg.test_dataloader.batch_size == 7 for cfg in seen] == [True, True, False]
    assert [cfg.launcher for cfg in seen] == ['none', 'none', 'slurm']
    pictures = [cfg.default_hooks.get('predictions') for cfg in seen]
    assert pictures == [
        None,
        dict(type='PredictionHook', out='x.json', show_dir=None),
        dict(type='PredictionHook', out=None, show_dir='shown'),
    ]


def test_test_time_augmentation_is_a_hook(run_tool, monkeypatch):
    seen = []
    monkeypatch.setattr(DistillRunner, 'from_cfg', lambda cfg: (seen.append(cfg), Mock())[1])
    option = ['--cfg-options', 'default_hooks.tta.mirrored=True']
    for more in ([], ['--tta'], ['--tta', '--out', 'x.json', *option]):
        run_tool('test.py', KD, 'student.pth', *more)
    hooks = [cfg.default_hooks.get('tta') for cfg in seen]
    assert hooks == [None, dict(type='TTAHook'), dict(type='TTAHook', mirrored=True)]
    assert seen[2].default_hooks.predictions.out == 'x.json'


def test_digits_are_not_mirrored(run_tool, tmp_path, capsys):
    """The checkpoint need not be there: it is said before anything is read or predicted."""
    with pytest.raises(SystemExit) as stop:
        run_tool('test.py', KD, 'student.pth', '--tta', '--work-dir', tmp_path)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and 'error: --tta averages over' in error
    assert 'does not mirror what it trains on' in error


TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper')
TEST = ('test_dataloader', 'test_cfg', 'test_evaluator')


@pytest.mark.parametrize(('absent', 'tool'), [(TRAINING, 'train.py'), (TEST, 'test.py')])
def test_only_one_tool_misses_a_part_of_the_config(
    run_tool, tmp_path, monkeypatch, capsys, absent, tool
):
    monkeypatch.setattr(DistillRunner, 'from_cfg', lambda cfg: Mock())
    config = tmp_path / 'partial.py'
    config.write_text('\n'.join([f'_base_ = {str(KD)!r}', *(f'{key} = None' for key in absent)]))
    commands = {'train.py': [config], 'test.py': [config, 'student.pth']}
    with pytest.raises(SystemExit):
        run_tool(tool, *commands.pop(tool), '--work-dir', tmp_path / 'run')
    assert f"cannot {tool[:-3]}: it has no '{absent[0]}'" in capsys.readouterr().err
    ((other, rest),) = commands.items()
    run_tool(other, *rest, '--work-dir', tmp_path / 'run')


@pytest.mark.parametrize(
    ('beside', 'options', 'expected'),
    [
        (['summary.json'], [], 'runs/mine/test'),
        ([KD.name], [], 'runs/mine/test'),
        ([], [], f'work_dirs/{KD.stem}/test'),
        (['other.py'], [], f'work_dirs/{KD.stem}/test'),
        ([], ['--cfg-options', 'work_dir=own'], 'own/test'),
        (['summary.json'], ['--work-dir', 'here'], 'here'),
    ],
)
def test_the_log_of_a_test_goes_into_the_run_of_the_checkpoint(
    run_tool, tmp_path, monkeypatch, beside, options, expected
):
    made = []
    monkeypatch.setattr(DistillRunner, 'from_cfg', lambda cfg: made.append(cfg) or Mock())
    monkeypatch.chdir(tmp_path)
    run = tmp_path / 'runs/mine'
    run.mkdir(parents=True)
    for name in ['student.pth', *beside]:
        (run / name).touch()
    run_tool('test.py', KD, 'runs/mine/student.pth', *options)
    assert made[0].work_dir == expected
    run_tool('test.py', KD, 'mmdfkd://lenet5_digits')
    assert made[1].work_dir == f'work_dirs/{KD.stem}/test'


def test_a_test_leaves_the_record_of_its_training_alone(run_tool, tmp_path):
    record = tmp_path / 'run/lenet5_digits.py'
    record.parent.mkdir()
    text = f'_base_ = {str(ROOT / "configs/teachers/lenet5_digits.py")!r}\n'
    record.write_text(f'{text}work_dir = {str(record.parent)!r}\n')
    before = record.read_bytes()
    printed = run_tool('test.py', record, 'mmdfkd://lenet5_digits')
    assert 'accuracy/top1' in printed and record.read_bytes() == before
    assert {path.name for path in record.parent.iterdir()} == {record.name, 'test'}
    assert (record.parent / 'test' / record.name).is_file()
