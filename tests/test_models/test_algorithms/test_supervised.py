# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.algorithms import Supervised
from mmdfkd.utils import UsageError


@pytest.fixture
def model(student):
    return Supervised({**student, 'input_shape': (1, 16, 16), 'mean': [120.0], 'std': [60.0]})


def test_loss_is_cross_entropy_and_falls(model, make_batch, take_steps):
    batch = make_batch(labelled=True)
    with torch.no_grad():
        logits = model.student.train()((batch['inputs'] - 120.0) / 60)
    expected = F.cross_entropy(logits, batch['label'])
    first = take_steps(model, batch)
    torch.testing.assert_close(first['loss'], expected)
    assert take_steps(model, *[batch] * 30)['loss'] < 0.8 * expected


def test_needs_labels(model, make_batch, take_steps):
    with pytest.raises(UsageError, match='needs labels.*train_dataloader.dataset'):
        take_steps(model, make_batch())
