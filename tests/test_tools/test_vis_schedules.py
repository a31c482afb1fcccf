# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The tool that draws learning rates; ``test_planned.py`` holds its numbers against runs."""

import pytest
from PIL import Image

DAFL = 'configs/dafl/dafl_resnet34_resnet18_1xb1024-2000e_cifar10.py'
CTKD = 'configs/ctkd/ctkd_lenet5_lenet5-half_1xb64-60e_digits.py'
KD3 = 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
TOOL = 'visualization/vis_schedules.py'


@pytest.fixture(autouse=True)
def in_repository(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_two_thousand_epochs_without_teacher_or_images(run_tool, tmp_path):
    out = tmp_path / 'schedules.png'
    printed = run_tool(TOOL, DAFL, '--out', out).splitlines()
    assert printed == [
        'lr of student: 0.1, 0.01 after 800 epochs, 0.001 after 1600 epochs',
        'lr of generator: 0.02',
        str(out),
    ]
    with Image.open(out) as image:
        assert image.size[0] == 1920


def test_a_bend_is_told_by_its_ends(run_tool, tmp_path):
    # 0.0015 (1 + cos(pi 39 / 40)) in the last epoch.
    printed = run_tool(TOOL, KD3, '--out', tmp_path / 'a.png')
    assert printed.startswith('lr of student: from 0.003 to 4.624e-06 in 40 epochs\n')


def test_what_is_not_known_beforehand_is_said(run_tool, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = '{__file__.rpartition('/tests/')[0]}/{KD3}'\n"
        "rule = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater')\n"
        'param_scheduler = dict(student=[rule])\n'
    )
    printed = run_tool(TOOL, config, '--out', tmp_path / 'a.png')
    assert 'lr of student: 0.003\n' in printed
    assert 'student: ReduceOnPlateauLR follows validations' in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([KD3, '--out', 'x.jpg'], 'PNG'),
        (['configs/kd3/kd4.py'], 'There is no config file'),
        ([KD3, '--cfg-options', 'param_scheduler.student.0.begin=40'], 'begins after 40 epochs'),
        ([CTKD, '--cfg-options', 'param_scheduler.student.0.T_maxx=4'], 'T_maxx'),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, message, run_tool, capsys):
    with pytest.raises(SystemExit) as stop:
        run_tool(TOOL, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith('error: ') and message in error and error.count('\n') == 1
