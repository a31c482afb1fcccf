# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import torch

from mmdfkd.models.selectors import ConfidenceSelector, Selection
from mmdfkd.models.selectors.index_file import read_index, write_index
from mmdfkd.utils import UsageError

FACTS = dict(
    teacher='3f2a', pool='77aa', mean=[1.5], std=[2.0], num_classes=4, selector='S', num_select=10
)


@pytest.fixture
def selection():
    return ConfidenceSelector()(pool_size=20, teacher_logits=torch.randn(20, 4))


def test_comes_back_as_it_was(tmp_path, selection):
    path = tmp_path / 'new' / 'index.npz'
    assert read_index(path, FACTS) is None
    write_index(path, selection, FACTS)
    again = read_index(path, FACTS)
    for name, value in selection._asdict().items():
        if name == 'student_weight':
            assert np.isnan(again.student_weight)
        else:
            assert torch.equal(getattr(again, name), value), name
    assert [file.name for file in path.parent.iterdir()] == ['index.npz']


@pytest.mark.parametrize(
    ('name', 'value', 'named'),
    [
        ('teacher', 'beef', r'made with teacher 3f2a, this run has teacher beef'),
        ('pool', 'beef', r'made with pool 77aa, this run has pool beef'),
        ('mean', [1.0], r'made with mean \[1\.5\], this run has mean \[1\.0\]'),
        ('num_classes', 5, r'num_classes 4, this run has num_classes 5'),
        ('num_select', 11, r'num_select 10, this run has num_select 11'),
    ],
)
def test_another_run_is_refused(tmp_path, selection, name, value, named):
    path = tmp_path / 'index.npz'
    write_index(path, selection, FACTS)
    with pytest.raises(UsageError, match=rf'index\.npz \(model\.selector.*{named}\. Delete'):
        read_index(path, {**FACTS, name: value})


def test_a_setting_that_only_one_of_two_runs_has_is_named(tmp_path, selection):
    path, capped = tmp_path / 'index.npz', {**FACTS, 'class_cap': 'even'}
    write_index(path, selection, FACTS)
    with pytest.raises(UsageError, match=r'class_cap None, this run has class_cap even'):
        read_index(path, capped)
    write_index(path, selection, capped)
    with pytest.raises(UsageError, match=r'class_cap even, this run has class_cap None'):
        read_index(path, FACTS)


def test_damaged_and_foreign_files_are_refused(tmp_path, selection):
    path = tmp_path / 'index.npz'
    np.savez(path, indices=np.arange(3))
    with pytest.raises(UsageError, match=r'index\.npz .*is damaged or holds no selection.*Delete'):
        read_index(path, FACTS)
    write_index(path, selection, FACTS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match=r'is damaged or holds no selection'):
        read_index(path, FACTS)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match=r'cannot be written to .*index\.npz.*Choose a folder'):
        write_index(tmp_path / 'file' / 'index.npz', Selection(torch.arange(3)), FACTS)
