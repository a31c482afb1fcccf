# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.modules import normalise_spectrum, statistics_kept


def test_batches_are_seen_and_not_remembered():
    norm = nn.BatchNorm1d(2).train()
    images = torch.randn(8, 2)
    with statistics_kept(norm):
        inside = norm(images)
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any()
    torch.testing.assert_close(inside, norm(images))  # the same batch statistics
    assert norm.num_batches_tracked == 1


def test_layers_come_back_as_they_were():
    forgetful, remembering = nn.BatchNorm1d(2, track_running_stats=False), nn.BatchNorm1d(2)
    moving, resting = (normalise_spectrum(nn.Linear(2, 2)).parametrizations.weight for _ in 'ab')
    resting.eval()
    with pytest.raises(ZeroDivisionError):
        with statistics_kept(nn.ModuleList([forgetful, remembering, moving, resting])):
            raise ZeroDivisionError
    assert not forgetful.track_running_stats and remembering.track_running_stats
    assert moving[0].training and not resting[0].training


def test_nothing_is_kept_where_that_is_not_wished():
    norm = nn.BatchNorm1d(2).train()
    with statistics_kept(norm, keep=False):
        norm(torch.randn(8, 2))
    assert norm.num_batches_tracked == 1
