# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmdfkd.datasets import PackedDataset
from mmdfkd.utils import UsageError
from mmdfkd.visualization import draw_run, runs


def selection(size=12):
    labels = np.arange(size) % 2
    confidence = np.linspace(0.1, 0.9, size, dtype=np.float32)
    thresholds = np.array([0.5, 0.4], np.float32)
    indices = np.flatnonzero(confidence > thresholds[labels])
    return dict(
        indices=indices,
        confidence=confidence,
        pseudo_labels=labels,
        thresholds=thresholds,
        classes=np.array(['cat', 'dog']),
    )


def test_what_a_collection_run_draws(tmp_path, write_start):
    write_start('20260101_000000', [10, 20])
    np.savez_compressed(tmp_path / 'selection.npz', **selection())
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    paths = draw_run(tmp_path, PackedDataset(images))
    assert paths == [tmp_path / 'figures' / name for name in ('history.png', 'selection.png')]
    assert all(Image.open(path).width == 1920 for path in paths)


def test_what_a_run_without_predictions_draws(tmp_path, write_start):
    """A random selection has indices only: there is no confidence to sort a grid by."""
    write_start('20260101_000000', [10, 20])
    np.savez_compressed(tmp_path / 'selection.npz', indices=np.arange(3), confidence=np.empty(0))
    assert draw_run(tmp_path, out=tmp_path / 'here') == [tmp_path / 'here' / 'history.png']


def test_a_run_without_anything_to_draw_draws_nothing(tmp_path):
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1.0, "epoch": 1, "step": 5}\n')
    assert draw_run(tmp_path) == []


def test_what_a_run_with_a_matrix_draws(tmp_path, write_start):
    write_start('20260101_000000', [10, 20])
    path = tmp_path / 'adaptation_matrix.npz'
    np.savez_compressed(path, matrix=np.eye(2), classes=np.array(['cat', 'dog']))
    figures = tmp_path / 'figures'
    names = ('history.png', 'adaptation_matrix.png')
    assert draw_run(tmp_path) == [figures / name for name in names]
    path.write_bytes(b'PK\x03\x04 cut off')
    with pytest.raises(UsageError, match=r'cannot read .*adaptation_matrix\.npz'):
        draw_run(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of each figure, by the name of its function."""
    calls = {}
    for name in ('plot_history', 'plot_pool_grid', 'plot_matrix', 'plot_gan', 'plot_tsne'):
        monkeypatch.setattr(runs, name, lambda *args, name=name, **more: calls.update({name: args}))
    return calls


def test_figures_are_given_what_the_run_recorded(tmp_path, asked, write_start):
    write_start('20260101_000000', [10, 20])
    (tmp_path / 'summary.json').write_text('{"teacher_accuracy": 95, "student_accuracy_last": 20}')
    record = selection()
    np.savez_compressed(tmp_path / 'selection.npz', **record)
    matrix, classes = np.array([[0.9, 0.1], [0.3, 0.7]]), record['classes']
    np.savez_compressed(tmp_path / 'adaptation_matrix.npz', matrix=matrix, classes=classes)
    counts = dict(pool=[4, 4], collected=[2, 3], earliest=[5, 0], latest=[3, 3])
    np.savez_compressed(
        tmp_path / 'gan.npz', epochs=[1], scores=[[1, 0, -1]], classes=classes, **counts
    )
    pool = PackedDataset(np.zeros((12, 8, 8, 1), np.uint8))
    draw_run(tmp_path, pool)

    assert asked['plot_history'][2] == 95
    _, images, names, labels, confidence, kept, thresholds = asked['plot_pool_grid']
    assert images is pool.images and names == ['cat', 'dog']
    assert np.array_equal(labels, record['pseudo_labels'])
    assert np.array_equal(confidence, record['confidence'])
    assert np.flatnonzero(kept).tolist() == record['indices'].tolist()
    assert np.array_equal(thresholds, record['thresholds'])
    assert np.array_equal(asked['plot_matrix'][1], matrix)
    shares = {name: found.tolist() for name, found in asked['plot_gan'][4].items()}
    assert shares == {
        'pool': counts['pool'],
        'collected': counts['collected'],
        'generated at first': counts['earliest'],
        'generated in the end': counts['latest'],
    }


def test_features_are_of_length_one_and_of_a_draw_of_each_group(tmp_path, asked, monkeypatch):
    """A teacher whose feature is what it sees: two pixels, normalised."""
    np.savez_compressed(tmp_path / 'selection.npz', **selection(4) | dict(indices=[0, 3]))
    teacher = SimpleNamespace(
        mean=[50.0],
        std=[10.0],
        input_shape=(1, 1, 2),
        head=SimpleNamespace(in_channels=2),
        extract=lambda images: SimpleNamespace(vector=images.flatten(1)),
    )
    pool = np.array([[80, 90], [50, 60], [60, 50], [20, 90]], np.uint8).reshape(4, 1, 2, 1)
    monkeypatch.setattr('mmdfkd.models.classifiers.build_teacher', lambda teacher: teacher)
    config = SimpleNamespace(model=SimpleNamespace(teacher=teacher))
    monkeypatch.setattr(runs, 'run_config', lambda work_dir: config)
    monkeypatch.setattr(runs, 'training_images', lambda work_dir: PackedDataset(pool))
    original = PackedDataset(np.arange(51, 251, dtype=np.uint8).reshape(100, 1, 2, 1))

    runs.draw_features(tmp_path / 'a.png', tmp_path, original, per_group=5)
    groups = asked['plot_tsne'][1]
    assert np.allclose(groups['selected'], [[0.6, 0.8], [-0.6, 0.8]])
    assert np.allclose(groups['rejected'], [[0, 1], [1, 0]])
    drawn = groups['original'][:, 1] / groups['original'][:, 0]  # (2 k + 2) / (2 k + 1)
    places = np.round((1 / (drawn - 1) - 1) / 2)
    assert len(places) == 5 and places.max() > 20 and np.all(np.diff(places) > 0)


def test_a_selection_without_thresholds(tmp_path, write_start):
    """One ranked by a score holds all classes to the same one."""
    write_start('20260101_000000', [10])
    record = {**selection(), 'thresholds': np.empty(0, np.float32)}
    np.savez_compressed(tmp_path / 'selection.npz', **record)
    images = np.zeros((12, 8, 8, 1), np.uint8)
    assert tmp_path / 'figures/selection.png' in draw_run(tmp_path, PackedDataset(images))
