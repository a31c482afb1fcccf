# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import json

import numpy as np
import pytest

from mmdfkd.utils import UsageError
from mmdfkd.visualization import draw_run, read_scalars
from mmdfkd.visualization.records import (
    chosen,
    curve_of,
    read_history,
    read_selection,
    read_summary,
    run_config,
    unit_of,
)

# As mmengine writes them: training records count iterations in 'step', validation ones epochs.
RECORDS = [
    {'weight': 0.9, 'epoch': 1, 'iter': 10, 'step': 10},
    {'weight': 0.8, 'epoch': 1, 'iter': 20, 'step': 20},
    {'accuracy/top1': 60.0, 'step': 1},
    {'weight': 0.7, 'epoch': 2, 'iter': 40, 'step': 40},
    {'accuracy/top1': 90.0, 'step': 2},
]


def test_scalars_written_by_mmengine_are_read_back(tmp_path):
    backend = pytest.importorskip('mmengine.visualization').LocalVisBackend(str(tmp_path))
    backend.add_scalars({'loss': 0.5, 'epoch': 1}, step=10)
    backend.add_scalar('accuracy/top1', 91.5, step=1)
    assert read_scalars(tmp_path / 'scalars.json') == [
        {'loss': 0.5, 'epoch': 1, 'step': 10},
        {'accuracy/top1': 91.5, 'step': 1},
    ]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text(json.dumps(RECORDS[0]) + '\n\n' + json.dumps(RECORDS[1]) + '\n{"loss": 0.')
    assert read_scalars(path) == RECORDS[:2]


@pytest.mark.parametrize('line', ['{"loss": 0.', '[1, 2]', 'epoch 1'])
def test_a_broken_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 1.0}\n' + line + '\n{"loss": 0.5}\n')
    with pytest.raises(UsageError, match=r'scalars\.json", line 2'):
        read_scalars(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'nowhere\.json'):
        read_scalars(tmp_path / 'nowhere.json')


def test_curves_count_in_epochs_and_the_last_value_of_an_epoch_counts():
    assert curve_of(RECORDS, 'weight') == [(1, 0.8), (2, 0.7)]
    assert curve_of(RECORDS, 'accuracy/top1') == [(1, 60.0), (2, 90.0)]
    resumed = [*RECORDS, {'accuracy/top1': 88.0, 'step': 2}, {'accuracy/top1': 'n/a', 'step': 3}]
    assert curve_of(resumed, 'accuracy/top1') == [(1, 60.0), (2, 88.0)]
    assert curve_of(RECORDS, 'absent') == []


def accuracies(work_dir):
    records = read_history(work_dir)
    return [(r['step'], r['accuracy/top1']) for r in records if 'accuracy/top1' in r]


def test_a_resumed_run_is_one_history(tmp_path, write_start):
    write_start('20260101_000000', [10, 20, 30])
    write_start('20260102_000000', [21, 31, 41], first=2)
    assert accuracies(tmp_path) == [(1, 10), (2, 21), (3, 31), (4, 41)]


def test_a_run_started_anew_forgets_the_old_one(tmp_path, write_start):
    write_start('20260101_000000', [10, 20, 30])
    write_start('20260102_000000', [15, 25])
    assert accuracies(tmp_path) == [(1, 15), (2, 25)]


def test_a_start_killed_before_its_first_record_changes_nothing(tmp_path, write_start):
    write_start('20260101_000000', [10, 20])
    write_start('20260102_000000', [])
    assert accuracies(tmp_path) == [(1, 10), (2, 20)]


@pytest.mark.parametrize('config', [None, 'train_cfg = dict(max_iters=3)'])
def test_a_validation_that_is_made_up_for_leaves_its_epoch_alone(tmp_path, config):
    def trained(number, loss):
        return {
            'loss': loss,
            'step': number,
            **(dict(epoch=1, iter=number) if config else dict(epoch=number)),
        }

    first = trained(1, 3.0), {'accuracy/top1': 10, 'step': 1}, trained(2, 2.0)
    write_records(tmp_path, '20260101_000000', *first, trained(3, 1.5), config=config)
    again = {'accuracy/top1': 20, 'step': 2}, trained(3, 1.0), {'accuracy/top1': 30, 'step': 3}
    write_records(tmp_path, '20260102_000000', *again, config=config)
    assert curve_of(read_history(tmp_path), 'loss') == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert accuracies(tmp_path) == [(1, 10), (2, 20), (3, 30)]


def write_records(work_dir, name, *records, config=None):
    """One start of a run, of given records."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))
    if config:
        (folder / 'config.py').write_text(config)


def test_a_resumed_run_that_makes_its_first_round_keeps_the_epochs_before(tmp_path, write_start):
    """HiDFD makes its images when its GAN is trained: round 1 is in epoch 2 here."""
    write_start('20260101_000000', [10])
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


def test_chosen_images():
    marks = chosen(dict(indices=np.array([0, 3]), confidence=np.empty(0)), 4)
    assert marks.tolist() == [True, False, False, True]


@pytest.mark.parametrize('pool_size', [11, 13])
def test_a_pool_that_has_changed_is_refused(pool_size):
    for indices in (np.array([1, 11]), np.empty(0, int)):
        with pytest.raises(UsageError, match=f'12 images, the pool now has {pool_size}'):
            chosen(dict(indices=indices, confidence=np.ones(12)), pool_size)


def test_a_config_is_that_of_the_last_start(tmp_path):
    for day, epochs in ((1, 3), (2, 7)):
        folder = tmp_path / f'2026010{day}_000000' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text(f'epochs = {epochs}\n')
    assert run_config(tmp_path).epochs == 7
