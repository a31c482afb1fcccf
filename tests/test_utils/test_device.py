# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmengine.device import utils

from mmdfkd.utils import UsageError
from mmdfkd.utils.device import choose_device, set_up_device


@pytest.mark.parametrize(
    ('found', 'chosen'), [('cpu', 'cpu'), ('cuda', 'cuda'), ('npu', 'npu'), ('mps', 'cpu')]
)
def test_mmengine_finds_the_device_but_on_a_mac(monkeypatch, found, chosen):
    monkeypatch.setattr(utils, 'DEVICE', found)
    assert choose_device() == chosen


@pytest.mark.parametrize('asked', [True, False])
def test_cudnn_looks_for_the_fastest_algorithms_if_asked(monkeypatch, asked):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    set_up_device(dict(cudnn_benchmark=asked))
    assert torch.backends.cudnn.benchmark == asked


@pytest.mark.parametrize('switch', ['keep_memory', 'tf32', 'cudnn_benchmark'])
def test_a_switch_is_on_off_or_left_open(switch):
    with pytest.raises(UsageError, match=rf"env_cfg\.{switch}='maybe'"):
        set_up_device({switch: 'maybe'})
    set_up_device({switch: None})
