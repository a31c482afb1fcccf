# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.modules import BestIterate
from mmdfkd.utils import UsageError


@pytest.mark.parametrize(
    ('losses', 'winner'),
    [
        ((3, 1, 2), 1),
        ((1, 1, 2), 0),  # the earlier of two
        ((math.nan, 5, 4), 2),
        ((5, math.nan, 6), 0),
        ((math.nan, math.nan), 0),
    ],
)
def test_the_lowest_loss_wins(losses, winner):
    best = BestIterate()
    for number, loss in enumerate(losses):
        best.offer(torch.tensor(float(loss)), images=torch.full((2,), float(number)))
    assert best['images'].tolist() == [winner, winner]
    torch.testing.assert_close(best.loss, torch.tensor(float(losses[winner])), equal_nan=True)


def test_what_is_kept_is_a_copy_without_gradient():
    best, images = BestIterate(), torch.zeros(2, requires_grad=True)
    for loss in (2.0, 1.0, 3.0):
        best.offer(images.sum() + loss, images=images, log=images.sum())
        with torch.no_grad():
            images += 1
    # losses 2, 1 + 2 * 1, 3 + 2 * 2
    assert best['images'].tolist() == [0, 0] and not best['images'].requires_grad
    assert best['log'].item() == 0 and not best.loss.requires_grad


def test_check():
    best = BestIterate()
    best.offer(torch.tensor(math.nan), images=torch.zeros(1))
    with pytest.raises(UsageError, match=r'loss of round 3 .* never a finite'):
        best.check(2)
    best.offer(torch.tensor(1.0), images=torch.zeros(1))
    best.check(2)
    best.offer(torch.tensor(math.inf), images=torch.zeros(1))
    with pytest.raises(UsageError, match=r'loss of round 3 .* did not stay a finite number'):
        best.check(2)
