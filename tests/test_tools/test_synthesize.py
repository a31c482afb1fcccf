# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Banks without a student: resumable byte for byte, and one recipe each."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmdfkd.datasets import ImagePool, PackedDataset, bank_files, write_pool
from mmdfkd.models.algorithms import DeepInversion, InversionDistiller, Synthesis
from mmdfkd.models.classifiers import load_classifier, save_classifier
from mmdfkd.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs/deepinversion/deepinversion_resnet8_resnet8-half_1xb96-20e_digits.py'
SMALL = ['--cfg-options', 'model.iterations=2', 'model.batch_size=8']


def content(folder):
    """Bytes of the files by name; of states the tensors, since torch.save's bytes vary."""

    def read(path):
        return str(torch.load(path)) if path.suffix == '.pth' else path.read_bytes()

    return {path.name: read(path) for path in Path(folder).iterdir()}


@MODELS.register_module(force=True)
class Painter(InversionDistiller):
    """A method with weights, a buffer and an optimiser that outlive its rounds."""

    def __init__(self, teacher, student, **kwargs):
        super().__init__(teacher, student, **kwargs)
        self.brush = torch.nn.Linear(3, 32 * 32)
        self.register_buffer('strokes', torch.zeros(3))

    def roles(self):
        return dict(student=[self.student], brush=[self.brush])

    def synthesize(self, optim_wrapper, round_number=0, adversary=True, on_step=lambda: None):
        assert not adversary
        for _ in range(self.iterations):
            images = self.brush(torch.randn(self.batch_size, 3) + self.strokes)
            images = images.view(-1, 1, 32, 32)
            optim_wrapper['brush'].update_params(self.teacher(images).square().mean())
            self.strokes += torch.rand(3)
            on_step()
        return Synthesis(images.detach(), self.draw_targets(), {})


@MODELS.register_module(force=True)
class Dreamer(DeepInversion):
    """Another method with the same settings."""


@pytest.fixture
def painter(tmp_path):
    """Its config."""
    cfg = Config.fromfile(DIGITS)
    cfg.model = dict(
        type='Painter', teacher=cfg.model.teacher, student=cfg.model.student, batch_size=8
    )
    cfg.model['iterations'] = 2
    cfg.optim_wrapper.brush = dict(optimizer=dict(type='Adam', lr=0.01))
    path = tmp_path / 'painter_digits.py'
    cfg.dump(path)
    return path


@pytest.fixture
def refused(run_tool, capsys):
    """Run the tool on something that it refuses; return what it says."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            run_tool('synthesize.py', *args)
        assert stop.value.code == 2
        return capsys.readouterr().err

    return run


def test_a_bank(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_tool('synthesize.py', DIGITS, '--num', 20, *SMALL)
    out = Path('work_dirs/banks', DIGITS.stem)
    pool = ImagePool(out)
    pool.verify()
    assert len(pool) == 24  # three whole rounds of 8
    assert sorted(content(out)) == ['images.npy', 'labels.npy', 'meta.json']
    assert pool.extra('labels').shape == (24,) and pool.extra('labels').max() < 10
    facts = pool.meta['bank']
    assert facts['method'] == 'DeepInversion' and facts['rounds'] == 3 and facts['seed'] == 0
    assert facts['classes'] == [*'0123456789']
    assert facts['settings']['iterations'] == 2
    assert not {'teacher', 'student', 'optim_wrapper'} & facts['settings'].keys()
    assert 'Round 3: 8 images' in printed and '24 in the bank' in printed
    assert f"{out}: 24 images, for dataset=dict(type='ImagePool', root='{out}')" in printed


def test_nothing_is_said_of_what_a_bank_needs_little_of(run_tool, tmp_path):
    """None is as good as a key that is not there."""
    nothing = ['default_hooks=None', 'env_cfg=None', 'randomness=None']
    run_tool('synthesize.py', DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL, *nothing)
    assert len(ImagePool(tmp_path / 'bank')) == 8


def test_no_student_takes_part(run_tool, tmp_path, monkeypatch):
    asked = []
    original = DeepInversion.image_loss
    monkeypatch.setattr(
        DeepInversion,
        'image_loss',
        lambda self, *args: (asked.append(args[-1]), original(self, *args))[1],
    )
    run_tool('synthesize.py', DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL)
    assert asked == [False, False]


def test_a_method_is_made_as_for_a_training(run_tool, tmp_path, monkeypatch):
    """Initialised once, in training mode, with the preprocessor of its config."""
    seen, begun = [], []
    init, whole = DeepInversion.init_weights, DeepInversion.synthesize

    def watch(model, *args, **kwargs):
        augment = [type(each).__name__ for each in model.data_preprocessor.augment]
        seen.append((len(begun), model.training, model.student.training, augment))
        return whole(model, *args, **kwargs)

    monkeypatch.setattr(DeepInversion, 'init_weights', lambda m: (begun.append(1), init(m)))
    monkeypatch.setattr(DeepInversion, 'synthesize', watch)
    run_tool('synthesize.py', DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL)
    assert seen == [(1, True, True, ['BatchRandomCrop'])]


def test_switches_for_speed(run_tool, tmp_path, monkeypatch):
    """The teacher is passed in bfloat16, and in float32 when the bank goes on without."""
    seen, whole = [], DeepInversion.synthesize

    def watch(model, *args, **kwargs):
        hook = model.teacher.head.register_forward_hook(lambda *pass_: seen.append(pass_[2].dtype))
        made = whole(model, *args, **kwargs)
        hook.remove()
        return made

    monkeypatch.setattr('mmdfkd.engine.optimizers.autocast.has_bfloat16', lambda device: True)
    monkeypatch.setattr(DeepInversion, 'synthesize', watch)
    command = ['synthesize.py', DIGITS, '--out', tmp_path / 'bank']
    fold = [*SMALL, 'default_hooks.speed.fold_teacher=True']
    printed = run_tool(*command, '--num', 8, '--amp', *fold)
    assert re.search(r'Speed: \d+ of \d+ BatchNorm layers of the teacher', printed)
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    run_tool(*command, '--num', 16, *SMALL)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize('switches', [['--amp'], []])
def test_a_bank_goes_on_with_other_switches(run_tool, tmp_path, painter, switches):
    command = ['synthesize.py', painter, '--out', tmp_path / 'bank', '--num']
    run_tool(*command, 8, *switches)
    run_tool(*command, 16, *([] if switches else ['--amp']))
    assert len(ImagePool(tmp_path / 'bank')) == 16


def test_the_warm_up_of_a_training_makes_the_same_images(run_tool, tmp_path):
    run_tool('synthesize.py', DIGITS, '--num', 16, '--out', tmp_path / 'bank', *SMALL)
    run_tool(
        *('train.py', DIGITS, '--work-dir', tmp_path / 'run', '--no-validate', *SMALL),
        *('model.warmup_rounds=2', 'train_cfg.max_epochs=1', 'train_dataloader.sampler.length=96'),
    )
    trained = np.load(tmp_path / 'run/bank/images.npy')
    assert len(trained) == 24
    np.testing.assert_array_equal(trained[:16], np.load(tmp_path / 'bank/images.npy'))


@pytest.mark.parametrize('method', ['deepinversion', 'painter'])
def test_going_on(run_tool, tmp_path, painter, method):
    """In one go; in two; and after the last round's images were lost: byte for byte the same."""
    config, options = (DIGITS, SMALL) if method == 'deepinversion' else (painter, [])

    def synthesize(name, num):
        args = ('--num', num, '--out', tmp_path / name, *options)
        return run_tool('synthesize.py', config, *args)

    synthesize('whole', 32)
    for num in (8, 24, 32):
        synthesize('parts', num)
    assert content(tmp_path / 'whole') == content(tmp_path / 'parts')
    states = [name for name in content(tmp_path / 'whole') if name.endswith('.pth')]
    assert states == ([] if method == 'deepinversion' else ['state_4.pth'])
    for name in states:
        state = torch.load(tmp_path / 'whole' / name, weights_only=True)
        assert state['model'].keys() == {'brush.weight', 'brush.bias', 'strokes'}
        assert state['optimizers'].keys() == {'brush'}
    (tmp_path / 'whole/.state_5-half.pth').touch()  # as a kill in the middle of writing leaves it
    for num in (20, 32):
        assert 'holds 32 images already' in synthesize('whole', num)
    assert content(tmp_path / 'whole') == content(tmp_path / 'parts')


@pytest.mark.parametrize('moment', ['append', 'save'])
def test_an_interruption_between_state_and_images(
    run_tool, tmp_path, painter, monkeypatch, capsys, moment
):
    def synthesize(name):
        run_tool('synthesize.py', painter, '--num', 24, '--out', tmp_path / name)

    synthesize('whole')
    original, calls = bank_files.BankFiles.append, []

    def append(self, *args):
        calls.append(args)
        if len(calls) == 2 and moment == 'append':
            raise KeyboardInterrupt
        original(self, *args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(bank_files.BankFiles, 'append', append)
        synthesize('parts')
    assert stop.value.code == 130
    assert 'The same command goes on' in capsys.readouterr().err
    assert len(ImagePool(tmp_path / 'parts')) == (8 if moment == 'append' else 16)
    (tmp_path / 'parts/.state_3-half.pth').touch()  # as a kill in the middle of writing leaves it
    synthesize('parts')
    assert content(tmp_path / 'whole') == content(tmp_path / 'parts')


@pytest.mark.slow
def test_killed(run_tool, tmp_path):
    """kill -9 in the middle of a round, twice; the end is that of an undisturbed synthesis."""

    def arguments(name):
        return [str(DIGITS), *SMALL, '--num', '120', '--out', str(tmp_path / name)]

    run_tool('synthesize.py', *arguments('whole'))
    command = [sys.executable, str(ROOT / 'tools/synthesize.py'), *arguments('killed')]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    for rounds in (3, 9):
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith(f'Round {rounds}:'):
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        ImagePool(tmp_path / 'killed').verify()
    assert json.loads((tmp_path / 'killed/meta.json').read_text())['bank']['rounds'] < 15
    run_tool('synthesize.py', *arguments('killed'))
    assert content(tmp_path / 'whole') == content(tmp_path / 'killed')


def test_the_seed_is_that_of_the_command_else_of_the_config(run_tool, tmp_path):
    commands = dict(
        zero=['--seed', 0, *SMALL, 'randomness.seed=1'],
        one=['--seed', 1, *SMALL],
        config=[*SMALL, 'randomness.seed=1'],
        none=[*SMALL, 'randomness.seed=None'],
    )
    images = {}
    for name, options in commands.items():
        run_tool('synthesize.py', DIGITS, '--num', 8, '--out', tmp_path / name, *options)
        images[name] = np.load(tmp_path / name / 'images.npy')
    assert (images['one'] == images['config']).all()
    assert (images['zero'] == images['none']).all()
    assert not (images['zero'] == images['one']).all()


@pytest.mark.parametrize(
    'cfg', [{}, dict(val_dataloader=dict(dataset=dict(type='ImagePool', root='nowhere')))]
)
def test_classes_without_their_images_are_numbers(cfg):
    class_names = runpy.run_path(str(ROOT / 'tools/synthesize.py'))['class_names']
    assert class_names(Config(cfg), 3) == ['0', '1', '2']


@DATASETS.register_module(force=True)
class Pets(PackedDataset):
    def __init__(self):
        super().__init__(np.zeros((2, 4, 4, 1), np.uint8), [0, 1], dict(classes=['cat', 'dog']))


def test_classes_have_their_names():
    class_names = runpy.run_path(str(ROOT / 'tools/synthesize.py'))['class_names']
    cfg = Config(dict(val_dataloader=dict(dataset=dict(type='Pets'))))
    assert class_names(cfg, 2) == ['cat', 'dog']


def test_a_bar_counts_the_rounds_that_were_made_before(run_tool, tmp_path, monkeypatch):
    said = []

    @contextmanager
    def advancing(*words):
        said.append(words)
        yield lambda: said.append('round')

    command = ['synthesize.py', DIGITS, '--out', tmp_path / 'bank', *SMALL]
    run_tool(*command[:2], '--num', 8, *command[2:])
    monkeypatch.setattr('mmdfkd.utils.progress.advancing', advancing)
    run_tool(*command[:2], '--num', 24, *command[2:])
    assert said == [('Rounds of synthesis', 3), 'round', 'round', 'round']


# What it refuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize('num', [0, -5])
def test_no_images(refused, num):
    assert f'--num is {num}; give the number of images to make, 1 or more.' in refused(
        DIGITS, '--num', num
    )


@pytest.mark.parametrize(
    ('others', 'words'),
    [
        (['--seed', 3, *SMALL], 'was made with seed=0, this run has seed=3'),
        ([*SMALL, 'model.jitter=1'], 'was made with settings.jitter='),
        ([*SMALL, 'model.type=Dreamer'], "was made with method='DeepInversion'"),
        ([*SMALL, 'model.teacher.checkpoint=other.pth'], 'was made with teacher='),
    ],
)
def test_a_bank_of_another_recipe(run_tool, refused, tmp_path, monkeypatch, others, words):
    monkeypatch.chdir(tmp_path)
    other = load_classifier('mmdfkd://resnet8_digits')
    torch.nn.init.zeros_(other.head.fc.bias)
    save_classifier('other.pth', other, {})
    run_tool('synthesize.py', DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL)
    before = content(tmp_path / 'bank')
    said = refused(DIGITS, '--num', 16, '--out', tmp_path / 'bank', *others)
    assert words in said and 'Choose another folder' in said
    assert content(tmp_path / 'bank') == before


def test_a_bank_of_other_steps(run_tool, refused, tmp_path, painter):
    """Of what is carried from round to round; the student takes none."""

    def command(num, role):
        option = f'optim_wrapper.{role}.optimizer.lr=0.02'
        return painter, '--num', num, '--out', tmp_path / 'bank', '--cfg-options', option

    run_tool('synthesize.py', *command(8, 'student'))
    before = content(tmp_path / 'bank')
    said = refused(*command(16, 'brush'))
    assert 'settings.optim_wrapper.brush.optimizer.lr=0.02' in said
    assert 'Choose another folder' in said
    assert content(tmp_path / 'bank') == before
    run_tool('synthesize.py', painter, '--num', 16, '--out', tmp_path / 'bank')
    assert len(ImagePool(tmp_path / 'bank')) == 16


def test_a_file_for_a_folder(refused, tmp_path):
    (tmp_path / 'bank').touch()
    said = refused(DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL)
    assert f'--out {tmp_path}/bank is a file. Give the folder of the bank.' in said


def test_a_switch_that_is_none(refused, tmp_path):
    said = refused(DIGITS, '--num', 8, '--out', tmp_path / 'bank', *SMALL, 'env_cfg.tf32=no')
    assert "env_cfg.tf32='no'" in said


def test_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / 'notes.txt').touch()
    assert 'is no image pool' in refused(DIGITS, '--num', 8, '--out', tmp_path, *SMALL)


@pytest.mark.parametrize(
    ('method', 'stem'),
    [
        ('KD3', 'kd3/kd3_resnet8_resnet8-half_1xb128-40e'),
        ('HiDFD', 'hidfd/hidfd_resnet8_resnet8-half_1xb64-74e'),  # its GAN takes collected ones
    ],
)
def test_a_method_that_makes_no_images(refused, tmp_path, method, stem):
    config = ROOT / f'configs/{stem}_digits.py'
    said = refused(config, '--num', 8, '--out', tmp_path / 'bank')
    assert f'{method} fills no bank of images' in said and 'configs/deepinversion' in said
    assert not (tmp_path / 'bank').exists()


def test_a_misspelt_option(refused, tmp_path):
    said = refused(DIGITS, '--num', 8, '--cfg-options', 'model.steps=3')
    assert 'model.steps' in said


def test_a_lost_state(run_tool, refused, tmp_path, painter):
    out = tmp_path / 'bank'
    run_tool('synthesize.py', painter, '--num', 8, '--out', out)
    (out / 'state_1.pth').unlink()
    said = refused(painter, '--num', 16, '--out', out)
    assert 'has 1 rounds, and state_1.pth' in said and 'another --out' in said


def test_a_full_disk(run_tool, refused, tmp_path, monkeypatch):
    out = tmp_path / 'bank'
    run_tool('synthesize.py', DIGITS, '--num', 8, '--out', out, *SMALL)
    before = content(out)

    def full(file):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(bank_files.BankFiles, '_commit', lambda *args: full(None))
        said = refused(DIGITS, '--num', 16, '--out', out, *SMALL)
    assert 'No space left on device' in said and 'Its 8 images are safe' in said
    assert content(out) == before


# What a bank is good for --------------------------------------------------------------------------


@pytest.fixture(scope='module')
def bank(run_tool, tmp_path_factory):
    """A bank of 96 images; it is not to be written to."""
    out = tmp_path_factory.mktemp('banks') / 'digits'
    small = ['--cfg-options', 'model.iterations=2', 'model.batch_size=48']
    run_tool('synthesize.py', DIGITS, '--num', 96, '--out', out, *small)
    return out


def test_kd3_learns_from_it_by_config_alone(run_tool, bank, tmp_path):
    config = ROOT / 'configs/kd3/kd3_resnet8_resnet8-half_1xb128-40e-bank_digits.py'
    root = Config.fromfile(config).train_dataloader.dataset.root
    assert f'--out {root} ' in config.read_text()
    run_tool(
        *('train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options'),
        *(f'train_dataloader.dataset.root={bank}', 'train_cfg.max_epochs=1'),
        'train_dataloader.batch_size=32',
    )
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['method'] == 'KD3' and summary['train_images'] == 'DeepInversion bank'
    assert 'bank' not in summary and 64 <= summary['images_used'] <= 96
    assert content(bank).keys() == {'images.npy', 'labels.npy', 'meta.json'}


def test_pictures(run_tool, bank, tmp_path, monkeypatch):
    asked = []
    original = ImagePool.extra
    monkeypatch.setattr(
        ImagePool, 'extra', lambda self, name: (asked.append(name), original(self, name))[1]
    )
    out = tmp_path / 'bank.png'
    printed = run_tool('visualization/vis_bank.py', bank, '--out', out)
    assert printed.strip() == f'{out}: 96 images, 2 rounds of DeepInversion'
    with Image.open(out) as image:
        plain = image.size
    assert plain[0] == 1920 and asked == ['labels']
    run_tool('visualization/vis_bank.py', bank, '--out', out, '--config', DIGITS)
    with Image.open(out) as image:
        assert image.size[1] > plain[1]  # captions take room


def test_a_picture_beside_the_bank_of_a_run(run_tool, bank, tmp_path):
    shutil.copytree(bank, tmp_path / 'run/bank')
    run_tool('visualization/vis_bank.py', tmp_path / 'run')
    assert (tmp_path / 'run/bank.png').exists()


def test_a_picture_with_another_teacher(bank, run_tool, capsys, tmp_path):
    other = ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
    with pytest.raises(SystemExit):
        run_tool('visualization/vis_bank.py', bank, '--out', tmp_path / 'x.png', '--config', other)
    assert 'has another teacher than the one that' in capsys.readouterr().err


def test_a_picture_of_a_pool(run_tool, capsys, tmp_path):
    write_pool(tmp_path / 'pool', np.zeros((2, 4, 4, 1), np.uint8), 'street')
    with pytest.raises(SystemExit):
        run_tool('visualization/vis_bank.py', tmp_path / 'pool')
    assert 'is an image pool, but no bank' in capsys.readouterr().err
