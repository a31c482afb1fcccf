# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import hashlib
import shutil

import pytest
import torch

from mmdfkd.models.classifiers import load_classifier, resolve_checkpoint, save_classifier

TOOL = 'model_converters/publish_model.py'


@pytest.fixture
def run_of_a_teacher(tmp_path):
    """What a run of the shipped teacher's recipe leaves."""
    work_dir = tmp_path / 'lenet5_digits'
    work_dir.mkdir()
    return shutil.copy(resolve_checkpoint('mmdfkd://lenet5_digits'), work_dir / 'student.pth')


def test_a_network_is_named_after_its_content(run_of_a_teacher, run_tool, tmp_path):
    printed = run_tool(TOOL, run_of_a_teacher, '--out', tmp_path / 'zoo')
    (published,) = (tmp_path / 'zoo').iterdir()
    # The shipped file was published by this tool: the same bytes get the same name.
    assert published.name == resolve_checkpoint('mmdfkd://lenet5_digits').name
    assert hashlib.sha256(published.read_bytes()).hexdigest()[:8] in published.name
    accuracy = load_classifier(published).meta['accuracy']
    assert str(published) in printed and f'LeNet5, accuracy {accuracy} %' in printed


def test_from_within_the_work_directory(run_of_a_teacher, run_tool, tmp_path, monkeypatch):
    work_dir = tmp_path / 'lenet5_digits'
    monkeypatch.chdir(work_dir)
    run_tool(TOOL, 'student.pth')
    name = resolve_checkpoint('mmdfkd://lenet5_digits').name
    assert {path.name for path in work_dir.iterdir()} == {'student.pth', name}


def test_another_name(run_of_a_teacher, run_tool, tmp_path):
    run_tool(TOOL, run_of_a_teacher, '--stem', 'mine', '--out', tmp_path / 'zoo')
    (published,) = (tmp_path / 'zoo').iterdir()
    assert published.name.startswith('mine-') and len(published.stem) == len('mine-') + 8


def test_what_is_no_network_is_not_published(run_tool, tmp_path, capsys):
    torch.save({'state_dict': {}}, tmp_path / 'epoch_1.pth')
    with pytest.raises(SystemExit):
        run_tool(TOOL, tmp_path / 'epoch_1.pth', '--out', tmp_path / 'zoo')
    assert 'error: ' in capsys.readouterr().err
    assert not (tmp_path / 'zoo').exists()


def test_an_accuracy_nobody_measured(tmp_path, run_tool):
    network = load_classifier('mmdfkd://lenet5_digits')
    save_classifier(tmp_path / 'mine' / 'student.pth', network, {})
    printed = run_tool(TOOL, tmp_path / 'mine' / 'student.pth', '--out', tmp_path / 'zoo')
    assert 'LeNet5, accuracy unknown' in printed
