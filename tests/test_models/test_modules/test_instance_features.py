# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.modules import (
    batch_norm_layers,
    feature_widths,
    named_layers,
    record_batch_statistics,
    record_instance_features,
)
from mmdfkd.utils import UsageError


def test_published_features(golden, toy_network):
    """Means over places of what enters the two batch norms."""
    arrays = golden('cmi')
    teacher = toy_network(4, arrays, 'feat/teacher').eval()
    with record_instance_features(batch_norm_layers(teacher)) as features:
        teacher(arrays['feat/x'])
    expected = arrays['feat/instance_mean_cat']
    torch.testing.assert_close(torch.cat(features, 1), expected, atol=1e-12, rtol=0)
    assert feature_widths(teacher, batch_norm_layers(teacher)) == [4, 8]


def test_one_pass_gives_features_and_statistics(golden, toy_network):
    arrays = golden('cmi')
    teacher = toy_network(4, arrays, 'feat/teacher').eval()
    images = arrays['feat/x'].clone().requires_grad_()
    layers = batch_norm_layers(teacher)
    with record_batch_statistics(teacher) as statistics, record_instance_features(layers) as seen:
        teacher(images)
    for layer, features in zip(statistics, seen, strict=True):
        torch.testing.assert_close(layer.mean, features.mean(0))
    seen[1].sum().backward()
    assert images.grad.abs().sum() > 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())


def test_hand_worked_input_and_output():
    layer = nn.Conv2d(1, 2, 1, bias=False)
    layer.weight.data.copy_(torch.tensor([2.0, -1]).view(2, 1, 1, 1))
    images = torch.tensor([[[[1.0, 3]]], [[[5.0, 7]]]])  # means 2 and 6
    for on, expected in (('input', [[2], [6]]), ('output', [[4, -2], [12, -6]])):
        with record_instance_features([layer], on) as features:
            layer(images)
        assert features[0].tolist() == expected


def test_of_several_maps_the_last():
    """A backbone gives a tuple, and a neck takes one."""
    layer, maps = nn.Identity(), (torch.zeros(2, 3, 4, 4), torch.ones(2, 5, 2, 2))
    for on in ('input', 'output'):
        with record_instance_features([layer], on) as features:
            layer(maps)
        assert torch.equal(features[0], torch.ones(2, 5))


def test_vectors_and_half_precision():
    layer = nn.Identity()
    with record_instance_features([layer]) as features:
        layer(torch.ones(2, 3, dtype=torch.bfloat16))
    assert features[0].shape == (2, 3) and features[0].dtype == torch.float32


def test_hooks_go_where_the_pass_fails():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), record_instance_features([layer]):
        layer(torch.ones(2, 3))
    assert not layer._forward_pre_hooks


def test_names():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert named_layers(network, ['1', '0'], 'key') == [network[1], network[0]]
    with pytest.raises(UsageError, match=r"model\.layers: .* no layer '2'.*others, 0, 1\."):
        named_layers(network, ['2'], 'model.layers')
