# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks of a method, counted: by hand, by their papers, and as a run counts them."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KD3 = 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def count(run_tool):
    """Rows of the table by part: parameters, trained ones, multiply-adds; and the last line."""

    def count(config, *options):
        printed = run_tool('analysis_tools/get_flops.py', config, *options).splitlines()
        assert printed[0].split() == ['part', 'parameters', 'trained', 'multiply-adds']
        rows = {}
        for line in printed[1:]:
            row = re.fullmatch(r'(\w+) \((.+)\) +([\d,]+) +([\d,]+) +([\d,]+|-)', line)
            if row is not None:
                name, kind, *numbers = row.groups()
                numbers = [None if n == '-' else int(n.replace(',', '')) for n in numbers]
                rows[f'{name} {kind}'] = tuple(numbers)
        assert len(rows) in (len(printed) - 1, len(printed) - 2)
        return rows, printed[-1]

    return count


def test_networks_by_hand(count):
    rows, last = count('configs/dafl/dafl_lenet5_lenet5-half_1xb96-20e_digits.py')
    assert list(rows) == [
        'teacher LeNet5',
        'student LeNet5-half',
        'generator UpsamplingGenerator',
    ]
    # 28*28*6*25 + 10*10*16*150 + 120*400 + 120*84 + 84*10; and of half the widths.
    assert rows['teacher LeNet5'] == (61_706, 0, 416_520)
    assert rows['student LeNet5-half'] == (15_738, 15_738, 133_740)
    # 64*64*8*8, and convolutions of maps of 16 and 32 pixels, of one latent.
    macs = 262_144 + 16 * 16 * 64 * 32 * 9 + 32 * 32 * (32 * 8 + 8) * 9
    assert rows['generator UpsamplingGenerator'] == (287_297, 287_297, macs)
    assert '25.5 % of the parameters' in last and '32.1 % of its multiply-adds' in last


def test_a_student_with_the_classifier_of_its_teacher_is_one_network(count):
    rows, _ = count(KD3)
    # Convolutions of the half; adapter 60 to 120 channels; the teacher's head, which is frozen.
    macs = (58_800 + 60_000 + 12_000) + (60 * 60 + 60 * 60 * 9 + 60 * 120) + (120 * 84 + 84 * 10)
    parameters, trained, counted = rows['student LeNet5-half']
    assert counted == macs
    assert parameters - trained == 120 * 84 + 84 + 84 * 10 + 10
    vectors = 60 * 128 + 128  # no image goes into a projection head
    assert rows['student_head ProjectionHead'] == (vectors, vectors, None)


def test_what_a_run_writes(count, run_tool, tmp_path):
    run_tool('train.py', KD3, '--quick', '--work-dir', tmp_path / 'run')
    summary = json.loads((tmp_path / 'quick' / 'run' / 'summary.json').read_text())
    rows, _ = count(KD3)
    for part in ('teacher', 'student'):
        parameters, _, macs = rows[f'{part} {summary[part]}']
        assert parameters == summary[f'{part}_params']
        assert macs == summary[f'{part}_macs']


def test_a_teacher_whose_weights_are_not_here(count, tmp_path):
    """The GAN of HiDFD, 4,304,387 parameters, by hand."""
    option = f'model.teacher.checkpoint={tmp_path}/missing.pth'
    rows, _ = count(
        'configs/hidfd/hidfd_resnet34_resnet18_1xb64-640e_cifar10.py', '--cfg-options', option
    )
    assert rows['teacher ResNet34'] == (21_282_122, 0, 1_159_402_496)
    # 3x3 convolutions of maps of 8, 16 and 32 pixels, 1x1 ones before these are doubled.
    blocks = 2 * 256 * 256 * 9 * (64 + 256 + 1024) + 256 * 256 * (16 + 64 + 256)
    macs = 128 * 4096 + blocks + 3 * 256 * 9 * 1024
    assert rows['generator BigGANGenerator'] == (4_304_387, 4_304_387, macs)
    assert rows['average MovingAverage'] == (4_304_387, 0, None)
    assert rows['discriminator BigGANDiscriminator'][2] > 0


def test_a_network_alone(count):
    rows, last = count('configs/teachers/lenet5_digits.py')
    assert rows == {'student LeNet5': (61_706, 61_706, 416_520)}
    assert '%' not in last


def test_a_file_that_alone_says_what_the_teacher_is(run_tool, tmp_path, capsys):
    def config(checkpoint):
        path = tmp_path / 'mine.py'
        teacher = f'dict(_delete_=True, checkpoint={str(checkpoint)!r})'
        path.write_text(f'_base_ = {str(ROOT / KD3)!r}\nmodel = dict(teacher={teacher})\n')
        return path

    printed = run_tool('analysis_tools/get_flops.py', config('mmdfkd://resnet8_digits'))
    assert re.search(r'teacher \(ResNet8\) +77,754 ', printed)
    with pytest.raises(SystemExit) as stop:
        run_tool('analysis_tools/get_flops.py', config(tmp_path / 'missing.pth'))
    assert stop.value.code == 2
    assert 'missing.pth' in (error := capsys.readouterr().err) and error.count('\n') == 1


# One of each method with a pair that is no toy; ResNet34 draws many weights.
RECIPES = [
    max(paths, key=lambda path: path.stem)
    for folder in sorted((ROOT / 'configs').glob('[!_]*'))
    if (paths := [p for p in folder.glob('*.py') if not re.search('resnet34|vgg', p.stem)])
]


@pytest.mark.slow
@pytest.mark.parametrize('config', RECIPES, ids=lambda path: path.parent.name)
def test_every_method(config, count):
    rows, last = count(config)
    names = [name.split()[0] for name in rows]
    assert names[:2] == ['teacher', 'student'] or names == ['student']
    networks = {'generator', 'memory', 'encoder', 'discriminator', 'scratch_teacher', *names[:2]}
    for (name, *_), row in ((key.split(), row) for key, row in rows.items()):
        assert (row[2] is not None) == (name in networks), name
    assert ('%' in last) == ('teacher' in names)
