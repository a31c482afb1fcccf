# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""ShuffleNetV1, ShuffleNetV2, MobileNetV2."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionResidual
from torchvision.models.shufflenetv2 import InvertedResidual as TorchvisionShuffle

from mmdfkd.models.backbones import SmallMobileNetV2, SmallShuffleNetV1, SmallShuffleNetV2
from mmdfkd.models.backbones.mobilenet_v2 import InvertedResidual
from mmdfkd.models.backbones.shufflenet_v1 import ShuffleBlockV1
from mmdfkd.models.backbones.shufflenet_v2 import DownBlockV2, ShuffleBlockV2
from mmdfkd.models.modules import ConvNeck
from mmdfkd.utils import UsageError


def awaken(network):
    """Give BatchNorm statistics and weights that would show a misplaced layer; eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def same_weights(network, reference):
    pairs = zip(network.state_dict().values(), reference.state_dict().values(), strict=True)
    for ours, theirs in pairs:  # same layers in the same order
        ours.copy_(theirs)


# Against torchvision ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('block', 'reference'),
    [
        (ShuffleBlockV2(8), TorchvisionShuffle(8, 8, 1)),
        (DownBlockV2(6, 8), TorchvisionShuffle(6, 8, 2)),
        (InvertedResidual(4, 4, 1, 6), TorchvisionResidual(4, 4, 1, 6)),
        (InvertedResidual(4, 6, 1, 6), TorchvisionResidual(4, 6, 1, 6)),
        (InvertedResidual(4, 4, 2, 6), TorchvisionResidual(4, 4, 2, 6)),
    ],
)
def test_block_equals_torchvision(block, reference):
    for module in reference.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # the papers' small-image form has plain ReLUs
                setattr(module, name, nn.ReLU())
    awaken(reference)
    same_weights(block.eval(), reference)
    x = torch.randn(2, block_channels(block), 8, 8)
    torch.testing.assert_close(block(x), reference(x))


def block_channels(block):
    first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
    return first.in_channels * (2 if isinstance(block, ShuffleBlockV2) else 1)


# ShuffleNetV1, by hand -------------------------------------------------------------------------


@pytest.mark.parametrize(('stride', 'channels'), [(1, 36), (2, 60)])
def test_shuffle_block_v1(stride, channels):
    block = awaken(ShuffleBlockV1(36, channels, stride, groups=3))
    x = torch.randn(2, 36, 8, 8)
    reduced = F.relu(block.reduce[1](block.reduce[0](x)))
    batch, width, height, side = reduced.shape
    shuffled = reduced.view(batch, 3, width // 3, height, side).transpose(1, 2).reshape_as(reduced)
    branch = block.expand(F.relu(block.depthwise[1](block.depthwise[0](shuffled))))
    if stride == 2:
        expected = torch.cat([branch, F.avg_pool2d(x, 3, 2, 1)], 1).relu()
    else:
        expected = (branch + x).relu()
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, channels, 8 // stride, 8 // stride)


def test_first_block_behind_the_stem_has_one_group():
    network = SmallShuffleNetV1()
    first, second = network.stages[0][0], network.stages[0][1]
    assert first.reduce[0].groups == 1 and first.expand[0].groups == 3
    assert second.reduce[0].groups == 3
    # (240 - 24) / 4 in the branch of the first block
    assert first.reduce[0].out_channels == 54


# Whole networks --------------------------------------------------------------------------------

NETWORKS = [
    (SmallShuffleNetV1, [(240, 16), (480, 8), (960, 4)]),
    (SmallShuffleNetV2, [(116, 16), (232, 8), (464, 4)]),
    (SmallMobileNetV2, [(12, 16), (16, 8), (48, 4), (160, 2)]),
]


@pytest.mark.parametrize(('network', 'expected'), NETWORKS)
def test_maps(network, expected):
    torch.manual_seed(0)
    every = network(in_channels=1, out_indices=range(len(expected))).eval()
    torch.manual_seed(0)
    last = network(in_channels=1).eval()
    images = torch.randn(1, 1, 32, 32)
    maps = every(images)
    shapes = [(channels, side, side) for channels, side in expected]
    assert [tuple(m.shape[1:]) for m in maps] == shapes
    assert torch.equal(last(images)[0], maps[-1])
    assert last.out_channels == shapes[-1][0]
    # MobileNetV2 ends in a linear layer, ShuffleNets in a ReLU
    assert (maps[-1].min() < 0) == (network is SmallMobileNetV2)


def test_channels_that_pass_by_stay_as_they_are():
    block = ShuffleBlockV2(8).eval()
    x = torch.randn(2, 8, 4, 4)
    # shuffled in two groups: passing and worked channels alternate
    torch.testing.assert_close(block(x)[:, ::2], x[:, :4])


def test_neck_is_conv_norm_relu():
    neck = awaken(ConvNeck(4, 6))
    x = torch.randn(2, 4, 3, 3)
    linear = torch.einsum('oi,bihw->bohw', neck.conv.weight[:, :, 0, 0], x)
    torch.testing.assert_close(neck(x), F.relu(neck.bn(linear)))
    assert neck.out_channels == 6


def test_initialisation_of_the_neck():
    torch.manual_seed(0)
    weight = ConvNeck(100, 400).conv.weight
    assert weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)  # of what leaves it
    neck = ConvNeck(4, 6, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    neck.init_weights()
    assert (neck.conv.weight == 0.5).all()


@pytest.mark.parametrize(
    ('network', 'wrong'),
    [
        (SmallShuffleNetV1, dict(out_indices=(3,))),
        (SmallShuffleNetV2, dict(width=0.75)),
        (SmallShuffleNetV2, dict(out_indices=())),
        (SmallMobileNetV2, dict(width=0.01)),
        (SmallMobileNetV2, dict(out_indices=(0, 1, 2))),
    ],
)
def test_usage_errors(network, wrong):
    with pytest.raises(UsageError, match=f'{network.__name__}: {next(iter(wrong))}='):
        network(**wrong)
