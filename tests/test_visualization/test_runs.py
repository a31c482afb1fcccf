# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmdfkd.datasets import PackedDataset
from mmdfkd.utils import UsageError
from mmdfkd.visualization import draw_run, runs
from mmdfkd.visualization.curves import curve_of, unit_of
from mmdfkd.visualization.runs import chosen, read_history, read_selection, read_summary


def write_start(work_dir, name, accuracies, first=1):
    """One start of a run, as mmengine records it: training counts steps, validation epochs."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = []
    for epoch, accuracy in enumerate(accuracies, first):
        lines.append(json.dumps({'loss': 1.0, 'epoch': epoch, 'step': 100 * epoch}))
        lines.append(json.dumps({'accuracy/top1': accuracy, 'step': epoch}))
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')


def accuracies(work_dir):
    records = read_history(work_dir)
    return [(r['step'], r['accuracy/top1']) for r in records if 'accuracy/top1' in r]


def test_a_resumed_run_is_one_history(tmp_path):
    write_start(tmp_path, '20260101_000000', [10, 20, 30])
    write_start(tmp_path, '20260102_000000', [21, 31, 41], first=2)
    assert accuracies(tmp_path) == [(1, 10), (2, 21), (3, 31), (4, 41)]


def test_a_run_started_anew_forgets_the_old_one(tmp_path):
    write_start(tmp_path, '20260101_000000', [10, 20, 30])
    write_start(tmp_path, '20260102_000000', [15, 25])
    assert accuracies(tmp_path) == [(1, 15), (2, 25)]


def test_a_start_killed_before_its_first_record_changes_nothing(tmp_path):
    write_start(tmp_path, '20260101_000000', [10, 20])
    write_start(tmp_path, '20260102_000000', [])
    assert accuracies(tmp_path) == [(1, 10), (2, 20)]


def write_records(work_dir, name, *records, config=None):
    """One start of a run, of given records."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))
    if config:
        (folder / 'config.py').write_text(config)


def test_a_resumed_run_that_makes_its_first_round_keeps_the_epochs_before(tmp_path):
    """HiDFD makes its images when its GAN is trained: round 1 is in epoch 2 here."""
    write_start(tmp_path, '20260101_000000', [10])
    round_1 = {'synthesized_classes': 3.0, 'round': 1, 'step': 1}
    write_records(tmp_path, '20260102_000000', round_1, {'accuracy/top1': 20, 'step': 2})
    assert accuracies(tmp_path) == [(1, 10), (2, 20)]
    assert unit_of(read_history(tmp_path), 'accuracy/top1') == 'epoch'


def test_a_resumed_run_replaces_rounds_by_their_own_number(tmp_path):
    """FastDFKD begins with many rounds, then adds one an epoch: 21 more in epochs 1 to 3."""

    def records(epochs, mark):
        for epoch in epochs:
            for number in range(1, 21) if epoch == 1 else ():
                yield {'synthesized_as_asked': mark, 'round': number, 'step': number}
            number = 20 + epoch
            yield {'synthesized_as_asked': mark, 'round': number, 'step': number}
            yield {'accuracy/top1': mark, 'step': epoch}

    write_records(tmp_path, '20260101_000000', *records((1, 2, 3), 1.0))
    write_records(tmp_path, '20260102_000000', *records((3, 4), 2.0))
    history = read_history(tmp_path)
    rounds = curve_of(history, 'synthesized_as_asked')
    assert rounds == [(n, 1.0 if n < 23 else 2.0) for n in range(1, 25)]
    assert len([record for record in history if 'round' in record]) == 24  # none is there twice
    assert unit_of(history, 'synthesized_as_asked') == 'round'
    assert accuracies(tmp_path) == [(1, 1), (2, 1), (3, 2), (4, 2)]


@pytest.mark.parametrize('config', ['model = dict(type=nowhere.Imported)', 'train_cfg = (', None])
def test_nothing_of_a_runs_config_is_run(tmp_path, config):
    folder = tmp_path / '20260101_000000/vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"accuracy/top1": 50.0, "step": 3}\n')
    if config:
        (folder / 'config.py').write_text(config)
    assert read_history(tmp_path) == [{'accuracy/top1': 50.0, 'step': 3}]


def test_a_run_that_counts_iterations_is_ordered_by_them(tmp_path):
    """For mmengine all of it is epoch 1; our hooks say so of what is done once."""
    config = "train_cfg = dict(type='IterBasedTrainLoop', max_iters=60, val_interval=20)\n"
    once = {'selected_share': 0.5, 'epoch': 1, 'step': 1}
    for day, first in ((1, 20), (2, 40)):
        records = [once]
        for step in range(first, 61 if day == 2 else 41, 20):
            records.append({'loss': 9.0 * day, 'epoch': 1, 'iter': step, 'step': step})
            records.append({'accuracy/top1': step + day, 'step': step})
        write_records(tmp_path, f'2026010{day}_000000', *records, config=config)
    history = read_history(tmp_path)
    assert curve_of(history, 'accuracy/top1') == [(20, 21), (40, 42), (60, 62)]
    assert curve_of(history, 'loss') == [(20, 9), (40, 18), (60, 18)]
    assert curve_of(history, 'selected_share') == [(1, 0.5)]
    assert unit_of(history, 'accuracy/top1') == unit_of(history, 'loss') == 'iteration'


def test_a_folder_without_a_run_is_named(tmp_path):
    for read in (read_history, draw_run):
        with pytest.raises(UsageError, match=f'{tmp_path} holds no .*scalars.json'):
            read(tmp_path)
    with pytest.raises(UsageError, match=r'selection\.npz.*finished run'):
        read_selection(tmp_path)
    assert read_summary(tmp_path) == {}


def test_damaged_records_are_named(tmp_path):
    (tmp_path / 'selection.npz').write_bytes(b'PK\x03\x04 cut off')
    with pytest.raises(UsageError, match=r'cannot read .*selection\.npz'):
        read_selection(tmp_path)
    (tmp_path / 'summary.json').write_text('{"teacher_accuracy": 9')
    assert read_summary(tmp_path) == {}


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


def test_chosen_images():
    marks = chosen(dict(indices=np.array([0, 3]), confidence=np.empty(0)), 4)
    assert marks.tolist() == [True, False, False, True]


@pytest.mark.parametrize('pool_size', [11, 13])
def test_a_pool_that_has_changed_is_refused(pool_size):
    with pytest.raises(UsageError, match=f'12 images, the pool now has {pool_size}'):
        chosen(selection(12), pool_size)
    with pytest.raises(UsageError, match=f'12 images, the pool now has {pool_size}'):
        chosen(selection(12) | dict(indices=np.empty(0, int)), pool_size)


def test_what_a_collection_run_draws(tmp_path):
    write_start(tmp_path, '20260101_000000', [10, 20])
    np.savez_compressed(tmp_path / 'selection.npz', **selection())
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    paths = draw_run(tmp_path, PackedDataset(images))
    assert paths == [tmp_path / 'figures' / name for name in ('history.png', 'selection.png')]
    assert all(Image.open(path).width == 1920 for path in paths)


def test_what_a_run_without_predictions_draws(tmp_path):
    """A random selection has indices only: there is no confidence to sort a grid by."""
    write_start(tmp_path, '20260101_000000', [10, 20])
    np.savez_compressed(tmp_path / 'selection.npz', indices=np.arange(3), confidence=np.empty(0))
    assert draw_run(tmp_path, out=tmp_path / 'here') == [tmp_path / 'here' / 'history.png']


def test_a_run_without_anything_to_draw_draws_nothing(tmp_path):
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1.0, "epoch": 1, "step": 5}\n')
    assert draw_run(tmp_path) == []


def test_what_a_run_with_a_matrix_draws(tmp_path):
    write_start(tmp_path, '20260101_000000', [10, 20])
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


def test_figures_are_given_what_the_run_recorded(tmp_path, asked):
    write_start(tmp_path, '20260101_000000', [10, 20])
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
    monkeypatch.setattr('mmdfkd.models.algorithms.base.build_teacher', lambda teacher: teacher)
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


def test_a_config_is_that_of_the_last_start(tmp_path):
    for day, epochs in ((1, 3), (2, 7)):
        folder = tmp_path / f'2026010{day}_000000' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text(f'epochs = {epochs}\n')
    assert runs.run_config(tmp_path).epochs == 7


def test_a_selection_without_thresholds(tmp_path):
    """One ranked by a score holds all classes to the same one."""
    write_start(tmp_path, '20260101_000000', [10])
    record = {**selection(), 'thresholds': np.empty(0, np.float32)}
    np.savez_compressed(tmp_path / 'selection.npz', **record)
    images = np.zeros((12, 8, 8, 1), np.uint8)
    assert tmp_path / 'figures/selection.png' in draw_run(tmp_path, PackedDataset(images))
