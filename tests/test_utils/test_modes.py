# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks come back in the mode in which they were."""

import pytest
from torch import nn

from mmdfkd.utils.modes import in_mode


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_mode_ends_with_its_block_and_with_an_error(before, mode):
    network = nn.Sequential(nn.BatchNorm1d(2)).train(before)
    with pytest.raises(KeyError), in_mode(network, mode):
        assert network.training == network[0].training == (mode == 'train')
        raise KeyError
    assert network.training == network[0].training == before
