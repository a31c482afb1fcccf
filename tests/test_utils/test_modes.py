# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks come back in the mode in which they were."""

import pytest
import torch
from torch import nn

from mmdfkd.utils.modes import dry_run, in_mode


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_mode_ends_with_its_block_and_with_an_error(before, mode):
    network = nn.Sequential(nn.BatchNorm1d(2)).train(before)
    with pytest.raises(KeyError), in_mode(network, mode):
        assert network.training == network[0].training == (mode == 'train')
        raise KeyError
    assert network.training == network[0].training == before


def test_a_dry_run_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).double()
    with dry_run(network, (1, 3, 5)) as image:
        output = network(image)
    assert output.shape == (1, 2, 3, 5) and output.dtype == torch.float64
    assert not output.requires_grad
    assert network.training and not network[1].num_batches_tracked
