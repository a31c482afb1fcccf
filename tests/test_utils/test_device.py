# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
from mmengine.device import utils

from mmdfkd.utils.device import choose_device


@pytest.mark.parametrize(
    ('found', 'chosen'), [('cpu', 'cpu'), ('cuda', 'cuda'), ('npu', 'npu'), ('mps', 'cpu')]
)
def test_mmengine_finds_the_device_but_on_a_mac(monkeypatch, found, chosen):
    monkeypatch.setattr(utils, 'DEVICE', found)
    assert choose_device() == chosen
