# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.models.backbones import LeNet5
from mmdfkd.models.backbones.lenet import MaxPool
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


# Published totals with the fully connected part: (120 -> 84 -> 10) and (60 -> 42 -> 10)
@pytest.mark.parametrize(('width', 'hidden', 'expected'), [(1.0, 84, 61_706), (0.5, 42, 15_738)])
def test_parameter_count(width, hidden, expected):
    backbone = LeNet5(width=width)
    head = nn.Sequential(nn.Linear(backbone.out_channels, hidden), nn.Linear(hidden, 10))
    count = sum(p.numel() for part in (backbone, head) for p in part.parameters())
    assert count == expected


@pytest.mark.parametrize(('width', 'channels'), [(1.0, 120), (0.5, 60)])
def test_map(width, channels):
    backbone = MODELS.build(dict(type='LeNet5', width=width, in_channels=3))
    (feature,) = backbone(torch.randn(2, 3, 32, 32))
    assert feature.shape == (2, channels, 1, 1)
    assert feature.min() >= 0  # after a ReLU
    assert backbone.out_channels == channels


def test_layers_in_order():
    torch.manual_seed(0)
    backbone = LeNet5()
    images = torch.randn(2, 1, 32, 32)
    w1, b1, w2, b2, w3, b3 = backbone.parameters()
    x = F.max_pool2d(F.conv2d(images, w1, b1).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, w2, b2).relu(), 2)
    torch.testing.assert_close(backbone(images)[0], F.conv2d(x, w3, b3).relu())


@pytest.mark.parametrize('size', [28, 29])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_pooling_without_a_graph_gives_the_same_numbers(size, layout):
    torch.manual_seed(0)
    maps = torch.randn(4, 6, size, size).relu().contiguous(memory_format=layout)
    maps[0, 0, 2, 3] = torch.nan
    with_graph = MaxPool()(maps.requires_grad_())
    with torch.no_grad():
        without = MaxPool()(maps)
    assert with_graph.requires_grad
    assert without.stride() == with_graph.stride()
    torch.testing.assert_close(without, F.max_pool2d(maps, 2), rtol=0, atol=0, equal_nan=True)


def test_pooling_before_relu_changes_neither_maps_nor_gradients():
    torch.manual_seed(0)
    backbone = LeNet5()
    images = torch.randn(8, 1, 32, 32)
    images[:, :, :12] = 0.5  # even patches, where several values are the maximum
    (ours,) = backbone(images)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    gradients = [p.grad for p in backbone.parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in backbone.parameters()]
    w1, b1, w2, b2, w3, b3 = parameters
    x = F.max_pool2d(F.conv2d(images, w1, b1).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, w2, b2).relu(), 2)
    published = F.conv2d(x, w3, b3).relu()
    (published * weight).sum().backward()
    assert torch.equal(ours, published)
    for ours, theirs in zip(gradients, parameters, strict=True):
        assert torch.equal(ours, theirs.grad)


def test_predictions_do_not_depend_on_the_graph():
    backbone = LeNet5(out_indices=(0, 1, 2))
    images = torch.randn(2, 1, 33, 32)
    with torch.no_grad():
        without = backbone(images)
    for found, expected in zip(without, backbone(images), strict=True):
        assert torch.equal(found, expected)


def test_inner_maps():
    torch.manual_seed(0)
    backbone = LeNet5(out_indices=(0, 1, 2))
    images = torch.randn(2, 1, 32, 32)
    maps = backbone(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(6, 14, 14), (16, 5, 5), (120, 1, 1)]
    torch.testing.assert_close(maps[0], F.max_pool2d(backbone.layers[0](images).relu(), 2))
    torch.testing.assert_close(maps[1], F.max_pool2d(backbone.layers[3](maps[0]).relu(), 2))
    assert backbone.state_dict().keys() == LeNet5().state_dict().keys()


@pytest.mark.parametrize('size', [32, 33, 36, 64])
def test_out_size(size):
    assert LeNet5()(torch.zeros(1, 1, size, size))[0].shape[2] == LeNet5.out_size(size)


def test_usage_errors():
    with pytest.raises(UsageError, match='28x28 pixels, expected at least 32x32'):
        LeNet5()(torch.zeros(1, 1, 28, 28))
    with pytest.raises(UsageError, match='width=0.1'):
        LeNet5(width=0.1)
    with pytest.raises(UsageError, match=r'LeNet5: out_indices=\(0, 1\)'):
        LeNet5(out_indices=(0, 1))
