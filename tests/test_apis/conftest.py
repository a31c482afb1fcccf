# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Networks and images as somebody has them who knows torch and nothing of ours."""

import numpy as np
import pytest
import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, width=4, num_classes=5):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.out = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.out(self.second(self.first(x)).mean((2, 3)))


@pytest.fixture(scope='session', autouse=True)
def fast_and_apart(tmp_path_factory):
    """Keep out of the user's cache, and write configs as they come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMDFKD_CACHE_DIR', str(tmp_path_factory.mktemp('cache')))
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture
def make_net():
    """Build such a network with weights of its own."""

    def make(seed, **sizes):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Net(**sizes)

    return make


@pytest.fixture
def teacher(make_net):
    """One whose predictions differ from image to image."""
    network = make_net(1, width=8)
    for _ in range(20):
        network(torch.randn(32, 1, 16, 16))
    with torch.no_grad():
        network.out.weight.mul_(30)
        network.out.bias.copy_(
            -network.out.weight
            @ network.second(network.first(torch.randn(64, 1, 16, 16))).mean((0, 2, 3))
        )
    return network


@pytest.fixture
def images():
    """96 images of noise, uint8 (N, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (96, 16, 16, 1), dtype=np.uint8)
