# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Tools that look at configs and at runs."""

import json
import re

import numpy as np
import pytest
from PIL import Image

CONFIG = 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'
TEACHER = 'configs/teachers/lenet5_digits.py'


@pytest.fixture(scope='module')
def work_dir(run_tool, tmp_path_factory):
    """A finished toy run of KD³."""
    folder = tmp_path_factory.mktemp('runs')
    run_tool('train.py', CONFIG, '--quick', '--work-dir', folder / 'kd3')
    return folder / 'quick' / 'kd3'


@pytest.fixture(autouse=True)
def in_repository(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def size(path):
    with Image.open(path) as image:
        return image.size


def test_a_run_leaves_its_selection_and_its_pictures(work_dir):
    with np.load(work_dir / 'selection.npz') as content:
        selection = dict(content)
    assert selection['confidence'].shape == selection['pseudo_labels'].shape == (256,)
    assert selection['thresholds'].shape == (10,)
    assert selection['classes'].tolist() == list('0123456789')
    indices = selection['indices']
    # Eq. (8), or the 64 most confident ones where fewer images pass.
    passed = selection['confidence'] > selection['thresholds'][selection['pseudo_labels']]
    if passed.sum() < 64:
        passed = selection['confidence'] >= np.sort(selection['confidence'])[-64]
    assert np.array_equal(np.flatnonzero(passed), indices)
    for name in ('history', 'selection'):
        assert size(work_dir / 'figures' / f'{name}.png')[0] >= 1920


def test_pictures_are_drawn_again(work_dir, run_tool):
    before = (work_dir / 'figures' / 'selection.png').read_bytes()
    (work_dir / 'figures' / 'selection.png').unlink()
    printed = run_tool('visualization/vis_selection.py', work_dir)
    assert (work_dir / 'figures' / 'selection.png').read_bytes() == before
    assert printed.split() == [
        str(work_dir / 'figures' / name) for name in ('history.png', 'selection.png')
    ]


def test_a_run_without_anything_to_draw_is_said_to_be_one(run_tool, tmp_path):
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1.0, "epoch": 1, "step": 5}\n')
    printed = run_tool('visualization/vis_selection.py', tmp_path)
    assert f'{tmp_path} recorded neither' in printed and printed.count('\n') == 1


def test_features_of_a_run(work_dir, run_tool, tmp_path):
    out = tmp_path / 'features.png'
    printed = run_tool('visualization/vis_tsne.py', work_dir, '--out', out, '--per-group', 40)
    nearest = dict(re.findall(r'(\w+): on average ([\d.]+) from the nearest', printed))
    assert list(nearest) == ['original', 'selected', 'rejected']
    # The teacher has been trained on such digits: they are closer to each other than to glyphs.
    assert float(nearest['original']) < float(nearest['selected'])
    assert size(out)[0] == 1920


def test_where_teacher_and_student_look(work_dir, run_tool, tmp_path):
    """A student is the same in its own file and in the last checkpoint; LeNet5's maps are inner."""
    for name in ('student', 'epoch_2'):
        out, checkpoint = tmp_path / f'{name}.png', work_dir / f'{name}.pth'
        printed = run_tool('visualization/vis_cam.py', CONFIG, checkpoint, '--out', out, '--num', 3)
        assert printed == f'{out}: 3 of 500 images of digits\n'
        assert size(out)[0] == 1920
    pictures = [(tmp_path / f'{name}.png').read_bytes() for name in ('student', 'epoch_2')]
    assert pictures[0] == pictures[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_2.png', 'student.png']


def test_runs_are_compared(work_dir, run_tool, tmp_path):
    out = tmp_path / 'sweep.png'
    printed = run_tool('analysis_tools/analyze_logs.py', work_dir, '--names', 'mine', '--out', out)
    last = json.loads((work_dir / 'summary.json').read_text())['student_accuracy_last']
    assert f'mine: last {last:.4g}' in printed and 'in 2 epochs' in printed
    assert size(out)[0] == 1920
    printed = run_tool('analysis_tools/analyze_logs.py', work_dir, '--key', 'selected_share')
    assert '0.25' in printed


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('visualization/vis_selection.py', ['{empty}'], 'work directory of a training run'),
        ('visualization/vis_tsne.py', ['{empty}'], 'work directory of a training run'),
        ('visualization/vis_cam.py', [CONFIG, '{run}/student.pth', '--num', '0'], '--num is 0'),
        ('visualization/vis_cam.py', [CONFIG, '{empty}/student.pth'], 'does not exist'),
        ('visualization/vis_cam.py', [TEACHER, '{run}/student.pth'], 'has no teacher'),
        ('analysis_tools/analyze_logs.py', ['{run}', '--key', 'nonsense'], "no 'nonsense'"),
        ('analysis_tools/analyze_logs.py', ['{run}', '{run}'], 'Give --names'),
        ('misc/print_config.py', ['configs/kd3/kd4.py'], 'There is no config file'),
        ('misc/print_config.py', [CONFIG, '--cfg-options', 'model.tua=4'], 'model.tua'),
        ('visualization/browse_dataset.py', [CONFIG, '--out', 'x.jpg'], 'PNG'),
        ('visualization/browse_dataset.py', [CONFIG, '--number', '0'], '--number is 0'),
    ],
)
def test_mistakes_end_in_one_sentence(
    tool, arguments, message, work_dir, run_tool, tmp_path, capsys
):
    arguments = [argument.format(empty=tmp_path, run=work_dir) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        run_tool(tool, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


def test_a_config_is_printed_with_what_it_inherits(run_tool):
    printed = run_tool(
        'misc/print_config.py', CONFIG, '--cfg-options', 'model.selector.norm=linear'
    )
    assert "type='KD3'" in printed and 'mmdfkd://lenet5_digits' in printed
    assert "norm='linear'" in printed


def test_training_images_are_drawn(run_tool, tmp_path):
    out = tmp_path / 'images.png'
    option = 'train_dataloader.dataset.num_images=256'
    printed = run_tool(
        'visualization/browse_dataset.py',
        CONFIG,
        *('--out', out, '--number', 5, '--views', 3, '--cfg-options', option),
    )
    assert '5 of 256 images of glyphs' in printed
    # A row has the stored image and 3 views, 64 pixels each with 4 between.
    assert size(out) == (4 * 68 + 4, 5 * 68 + 4)
    rows = np.asarray(Image.open(out).convert('L'))[4:68]
    stored, view = rows[:, 4:68], rows[:, 72:136]
    assert stored.std() > 0 and not np.array_equal(stored, view)
