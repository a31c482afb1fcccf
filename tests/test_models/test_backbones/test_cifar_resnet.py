# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from mmdfkd.models.backbones import CifarResNet
from mmdfkd.models.backbones.cifar_resnet import BasicBlock
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


# Published totals with a linear classifier on 64 channels and projection shortcuts
@pytest.mark.parametrize(
    ('depth', 'classes', 'expected'),
    [(20, 10, 272_474), (20, 100, 278_324), (110, 10, 1_730_714), (110, 100, 1_736_564)],
)
def test_parameter_count(depth, classes, expected):
    backbone = CifarResNet(depth)
    head = nn.Linear(backbone.out_channels, classes)
    count = sum(p.numel() for part in (backbone, head) for p in part.parameters())
    assert count == expected


@pytest.mark.parametrize(('in_channels', 'out_channels', 'stride'), [(4, 4, 1), (4, 6, 2)])
@pytest.mark.parametrize('training', [True, False])
def test_block_equals_torchvision(in_channels, out_channels, stride, training):
    torch.manual_seed(0)
    block = BasicBlock(in_channels, out_channels, stride).train(training)
    downsample = None
    if stride != 1:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    reference = TorchvisionBlock(in_channels, out_channels, stride, downsample).train(training)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh statistics would hide a misplaced norm
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    state = {k.replace('shortcut', 'downsample'): v for k, v in block.state_dict().items()}
    reference.load_state_dict(state)
    x = torch.randn(3, in_channels, 8, 8)
    torch.testing.assert_close(block(x), reference(x))


def test_few_channels_of_large_maps():
    """There PyTorch's shortcut, channels last, ends the process in its backward pass."""
    torch.manual_seed(0)
    block, images = BasicBlock(8, 16, 2).eval(), torch.randn(18, 8, 64, 64)
    gradients = []
    for layout in (torch.channels_last, torch.contiguous_format):
        pixels = images.clone(memory_format=layout).requires_grad_()
        block(pixels).square().sum().backward()
        gradients.append(pixels.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_network_is_stem_and_stages():
    torch.manual_seed(0)
    backbone = CifarResNet(14, widths=(4, 6, 8), out_indices=(0, 1, 2)).eval()
    x = torch.randn(2, 3, 32, 32)
    maps = backbone(x)
    x = F.relu(backbone.bn1(backbone.conv1(x)))
    for stage, feature, shape in zip(
        backbone.stages, maps, [(4, 32), (6, 16), (8, 8)], strict=True
    ):
        assert len(stage) == 2  # (14 - 2) / 6
        x = stage(x)
        torch.testing.assert_close(feature, x)
        assert feature.shape == (2, shape[0], shape[1], shape[1])


@pytest.mark.parametrize('size', [32, 28, 17])
@pytest.mark.parametrize('stem_stride', [1, 2])
def test_out_size(size, stem_stride):
    backbone = CifarResNet(8, (8, 16, 32), in_channels=1, stem_stride=stem_stride)
    (feature,) = backbone(torch.zeros(2, 1, size, size))
    assert feature.shape[1] == backbone.out_channels == 32
    assert feature.shape[2] == backbone.out_size(size)


def test_out_indices():
    torch.manual_seed(0)
    shallow = MODELS.build(dict(type='CifarResNet', out_indices=(1,)))
    torch.manual_seed(0)
    deep = CifarResNet(out_indices=(0, 1))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(shallow(x)[0], deep(x)[1])
    assert shallow.out_channels == 32
    assert len(shallow.stages) == 2  # no parameter without gradient


def test_he_initialisation():
    torch.manual_seed(0)
    backbone = CifarResNet(8)
    weight = backbone.stages[2][0].conv2.weight  # std = sqrt(2 / (64 * 3 * 3)) = 0.058926
    assert weight.std().item() == pytest.approx(0.058926, rel=0.03)
    before = weight.clone()
    backbone.init_weights()
    assert torch.equal(weight, before)  # a later init_weights() keeps loaded weights


@pytest.mark.parametrize(
    'wrong',
    [
        dict(depth=10),
        dict(depth=2),
        dict(widths=(16, 32)),
        dict(out_indices=()),
        dict(out_indices=(3,)),
        dict(out_indices=(2, 1)),
    ],
)
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=f'{next(iter(wrong))}='):
        CifarResNet(**wrong)
