# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.logging import HistoryBuffer

from mmdfkd.engine.runner.checkpoints import (
    check_best,
    checkpoint_folders,
    latest_checkpoint,
    move_best,
    restore_histories,
    to_plain,
)
from mmdfkd.evaluation import Accuracy, Agreement
from mmdfkd.utils import UsageError


def test_what_is_written_can_be_read_as_data_only():
    facts = ConfigDict(values=(np.float32(0.5), np.int64(3)), array=np.arange(3), nothing=None)
    facts.update({7: np.float64, 'tensor': torch.ones(2)})
    checkpoint = dict(message_hub=dict(log_scalars={}, facts=facts), meta=dict(facts=facts))
    schedule = dict(last_step=3, anneal_func=max)  # as OneCycleLR has it
    to_plain(checkpoint | dict(param_schedulers=[]))
    checkpoint['param_schedulers'] = dict(student=[schedule])
    to_plain(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    for facts in (read['message_hub']['facts'], read['meta']['facts']):
        assert facts['values'] == (0.5, 3) and facts['nothing'] is None
        assert facts['array'].tolist() == [0, 1, 2] and facts['tensor'].tolist() == [1, 1]
        assert facts['7'] == str(np.float64)
    assert read['param_schedulers'] == dict(student=[dict(last_step=3)])


def test_histories_come_back_with_their_weights():
    history = HistoryBuffer([1.0, 4.0], [3, 1])
    checkpoint = dict(message_hub=dict(log_scalars={'train/loss': history}), meta={})
    to_plain(checkpoint)
    restore_histories(checkpoint)
    restored = checkpoint['message_hub']['log_scalars']['train/loss']
    assert restored.mean() == history.mean() == (1 + 4) / (3 + 1)
    restore_histories({})  # of a student, which has none


def test_the_latest_checkpoint_of_a_folder(tmp_path):
    """That of its own, as the folder may have been copied, or one that is kept elsewhere."""
    assert latest_checkpoint(str(tmp_path)) is None
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_3.pth')
    assert latest_checkpoint(str(tmp_path)) == '/elsewhere/epoch_3.pth'
    (tmp_path / 'epoch_3.pth').touch()
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_3.pth')


def test_the_best_checkpoint_and_its_score_belong_together(tmp_path):
    (tmp_path / 'best_a.pth').touch()
    known = {
        'best_ckpt_a': '/elsewhere/best_a.pth',
        'best_score_a': 1.0,
        'best_ckpt_b': '/elsewhere/best_b.pth',
        'best_score_b': 2.0,
        'last_ckpt': '/elsewhere/epoch_1.pth',
        'seen': 3,
    }
    move_best(known, [tmp_path.resolve()])
    assert known == {'best_ckpt_a': str(tmp_path / 'best_a.pth'), 'best_score_a': 1.0, 'seen': 3}


def test_a_best_checkpoint_of_the_run_itself_stays_its_own(tmp_path):
    """Whatever the way to its folder."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'run')
    known = {'best_ckpt': str(tmp_path / 'link/best.pth'), 'best_score': 1.0}
    before = dict(known)
    move_best(known, [tmp_path / 'run'])
    assert known == before


def test_where_checkpoints_of_a_run_are(tmp_path):
    hooks = [
        CheckpointHook(out_dir=str(tmp_path / 'kept')),
        CheckpointHook(),
        LoggerHook(out_dir=str(tmp_path / 'logs')),
    ]
    runner = SimpleNamespace(hooks=hooks, work_dir=str(tmp_path / 'other/../runs/one'))
    places = {path.relative_to(tmp_path).as_posix() for path in checkpoint_folders(runner)}
    assert places == {'runs/one', 'kept', 'kept/one'}


class Mine(BaseMetric):
    """Of a user: nobody knows what it reports."""

    def process(self, data_batch, data_samples): ...

    def compute_metrics(self, results): ...


class Finer(Accuracy):
    """Another one."""


ALL, TOP5 = [Accuracy(), Agreement()], [Accuracy(topk=(1, 5))]


@pytest.mark.parametrize(
    ('best', 'metrics', 'distils', 'fine'),
    [
        ('accuracy/top1', ALL, True, True),
        ('agreement/teacher', ALL, True, True),
        ('agreement/teacher', ALL, False, False),  # there is no teacher
        ('accuracy/top5', ALL, True, False),
        ('accuracy/top5', TOP5, False, True),
        ('accuracy/helper_top1', ALL, True, True),  # of another network that a method evaluates
        ('accuracy/helper_top5', ALL, True, False),
        (['accuracy/top1', 'top1'], ALL, True, False),
        ('auto', ALL, True, True),
        ('mine/score', [Accuracy(), Mine()], True, True),
        ('accuracy/top3', [Finer()], True, True),
        (None, ALL, True, True),
    ],
)
def test_what_a_best_checkpoint_may_be_judged_by(best, metrics, distils, fine):
    options = dict(save_best=best, rule='greater')
    hooks = [LoggerHook(), CheckpointHook(**options), SimpleNamespace(save_best='of its own')]
    if fine:
        check_best(hooks, metrics, distils)
        return
    with pytest.raises(UsageError, match='save_best=.* is nothing that validations report'):
        check_best(hooks, metrics, distils)
