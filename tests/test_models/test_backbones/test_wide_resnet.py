# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.backbones import WideResNet
from mmdfkd.models.backbones.wide_resnet import PreActivationBlock
from mmdfkd.utils import UsageError


@pytest.fixture
def block():
    """Build a block whose norms do not hide where they stand."""

    def build(*args):
        block = PreActivationBlock(*args).eval()
        for norm in (block.bn1, block.bn2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        return block

    return build


def test_block_adds_its_input(block):
    block = block(4, 4, 1)
    x = torch.randn(2, 4, 8, 8)
    out = block.conv1(F.relu(block.bn1(x)))
    expected = x + block.conv2(F.relu(block.bn2(out)))
    torch.testing.assert_close(block(x.clone()), expected)


def test_projection_takes_the_activated_input(block):
    block = block(4, 6, 2)
    x = torch.randn(2, 4, 8, 8)
    activated = F.relu(block.bn1(x))
    branch = block.conv2(F.relu(block.bn2(block.conv1(activated))))
    expected = F.conv2d(activated, block.shortcut.weight, stride=2) + branch
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, 6, 4, 4)


def test_input_is_not_overwritten(block):
    x = torch.randn(2, 4, 8, 8)
    kept = x.clone()
    block(4, 4, 1)(x)
    assert torch.equal(x, kept)


def test_maps():
    network = WideResNet(16, 2, out_indices=(0, 1, 2)).eval()
    network.bn.running_mean.normal_()
    images = torch.randn(2, 3, 32, 32)
    maps = network(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]
    x = network.conv1(images)
    for group, found in zip(network.groups[:2], maps[:2], strict=True):
        x = group(x)
        torch.testing.assert_close(found, x)
    # what pre-activation leaves over belongs to the last map
    torch.testing.assert_close(maps[2], F.relu(network.bn(network.groups[2](x))))
    assert maps[2].min() == 0 and maps[1].min() < 0
    assert network.out_channels == 128
    (last,) = WideResNet(16, 2, in_channels=1)(torch.zeros(2, 1, 32, 32))
    assert last.shape == maps[2].shape


def test_raw_last():
    torch.manual_seed(0)
    plain = WideResNet(16, 1, out_indices=(0, 1, 2)).eval()
    raw = WideResNet(16, 1, out_indices=(0, 1, 2), raw_last=True).eval()
    raw.load_state_dict(plain.state_dict())
    for network in (plain, raw):
        network.bn.running_mean.fill_(0.3)
    images = torch.randn(2, 3, 32, 32)
    expected, maps = plain(images), raw(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (32, 16, 16), *[(64, 8, 8)] * 2]
    for found, same in zip((*maps[:2], maps[3]), expected, strict=True):
        assert torch.equal(found, same)
    assert maps[2].min() < 0  # the sum itself, not overwritten by the ReLU
    torch.testing.assert_close(F.relu(raw.bn(maps[2])), maps[3])


@pytest.mark.parametrize(
    'wrong', [dict(depth=20), dict(depth=4), dict(out_indices=(0, 1)), dict(out_indices=(2, 1))]
)
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=f'WideResNet: {next(iter(wrong))}='):
        WideResNet(**wrong)
