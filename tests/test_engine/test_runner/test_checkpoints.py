# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import io

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdfkd.engine.runner.checkpoints import (
    latest_checkpoint,
    move_best,
    restore_histories,
    to_plain,
)


def test_what_is_written_can_be_read_as_data_only():
    facts = ConfigDict(values=(np.float32(0.5), np.int64(3)), array=np.arange(3), nothing=None)
    facts.update({7: np.float64, 'tensor': torch.ones(2)})
    checkpoint = dict(message_hub=dict(log_scalars={}, facts=facts), meta=dict(facts=facts))
    to_plain(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    for facts in (read['message_hub']['facts'], read['meta']['facts']):
        assert facts['values'] == (0.5, 3) and facts['nothing'] is None
        assert facts['array'].tolist() == [0, 1, 2] and facts['tensor'].tolist() == [1, 1]
        assert facts['7'] == str(np.float64)


def test_histories_come_back_with_their_weights():
    history = HistoryBuffer([1.0, 4.0], [3, 1])
    checkpoint = dict(message_hub=dict(log_scalars={'train/loss': history}), meta={})
    to_plain(checkpoint)
    restore_histories(checkpoint)
    restored = checkpoint['message_hub']['log_scalars']['train/loss']
    assert restored.mean() == history.mean() == (1 + 4) / (3 + 1)


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
