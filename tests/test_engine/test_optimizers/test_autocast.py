# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.engine import AutocastOptimWrapper
from mmdfkd.utils import UsageError


def wrapper(network, **more):
    return AutocastOptimWrapper(optimizer=torch.optim.SGD(network.parameters(), lr=1.0), **more)


def test_forward_is_bfloat16_and_weights_stay_float32_on_a_cpu():
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optim_wrapper = wrapper(network)
    with optim_wrapper.optim_context(network):
        output = network(torch.tensor([[1.00390625]]))  # 1 + 2^-8: bfloat16 rounds it to 1
    assert output.dtype == torch.bfloat16 and output.item() == 1.0
    optim_wrapper.update_params(output.float().sum() * 0.25)
    assert network.weight.dtype == torch.float32
    assert network.weight.item() == 0.75  # 1 - 0.25 * 1


def test_nothing_is_cast_outside_and_float32_switches_it_off():
    network = nn.Linear(1, 1)
    optim_wrapper = wrapper(network)
    with optim_wrapper.optim_context(network):
        pass
    assert network(torch.ones(1, 1)).dtype == torch.float32
    with wrapper(network, dtype='float32').optim_context(network):
        assert network(torch.ones(1, 1)).dtype == torch.float32


def test_an_unknown_type_is_named():
    with pytest.raises(UsageError, match=r"optim_wrapper.*dtype='float16'.*'bfloat16'"):
        wrapper(nn.Linear(1, 1), dtype='float16')
