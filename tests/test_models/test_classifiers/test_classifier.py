# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdfkd.models.classifiers import Classifier, map_shapes, pool
from mmdfkd.models.classifiers.classifier import plain
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CONFIG = dict(
    type='Classifier',
    name='tiny',
    backbone=dict(
        type='CifarResNet', depth=8, widths=(2, 4, 6), in_channels=1, out_indices=(0, 1, 2)
    ),
    head=dict(in_channels=6, num_classes=5),
    input_shape=(1, 16, 16),
    mean=(120.0,),
    std=(60.0,),
)


def test_extract_keeps_every_stage():
    network = MODELS.build(CONFIG).eval()
    images = torch.randn(2, 1, 16, 16)
    features = network.extract(images)
    assert [tuple(m.shape) for m in features.maps] == [(2, 2, 16, 16), (2, 4, 8, 8), (2, 6, 4, 4)]
    assert features.map is features.maps[-1]
    torch.testing.assert_close(features.vector, features.map.flatten(2).mean(2))
    torch.testing.assert_close(
        features.logits, features.vector @ network.head.fc.weight.T + network.head.fc.bias
    )
    assert torch.equal(network(images), features.logits)


@pytest.mark.parametrize('training', [True, False])
def test_map_shapes_leave_the_network_as_it_was(training):
    network = MODELS.build(CONFIG).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert map_shapes(network) == [(2, 16, 16), (4, 8, 8), (6, 4, 4)]
    assert network.training is training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_neck_comes_before_the_pooling():
    neck = dict(type='SimKDAdapter', in_channels=6, out_channels=3, form='linear')
    network = MODELS.build({**CONFIG, 'neck': neck, 'head': dict(in_channels=3, num_classes=5)})
    images = torch.randn(2, 1, 16, 16)
    features = network.eval().extract(images)
    assert features.maps[-1].shape == (2, 6, 4, 4) and features.map.shape == (2, 3, 4, 4)
    torch.testing.assert_close(features.vector, features.map.mean((2, 3)))
    assert torch.equal(network(images), features.logits)


def test_pool_is_the_mean_over_pixels():
    feature_map = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert pool(feature_map).tolist() == [[4.0, 1.0]]


def test_config_rebuilds_the_network():
    network = MODELS.build(CONFIG).eval()
    again = MODELS.build(network.config).eval()
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(network(images), again(images))
    assert again.config == network.config
    assert (again.name, again.num_classes, again.input_shape) == ('tiny', 5, (1, 16, 16))
    assert (again.mean, again.std) == ([120.0], [60.0])


def test_names_are_mmpretrains():
    names = set(MODELS.build(CONFIG).state_dict())
    assert {'backbone.conv1.weight', 'head.fc.weight', 'head.fc.bias'} <= names
    assert {name.split('.')[0] for name in names} == {'backbone', 'head'}


@pytest.mark.parametrize('key', ['input_shape', 'mean', 'std'])
def test_what_is_not_stated_is_asked_for(key):
    network = MODELS.build({**CONFIG, key: None})
    with pytest.raises(UsageError, match=f"tiny does not state its '{key}'. Add {key}="):
        getattr(network, key)


def test_a_head_fits_its_backbone():
    with pytest.raises(UsageError, match=r'in_channels=64.* has 6\. Set head\.in_channels=6'):
        MODELS.build(dict(CONFIG, head=dict(in_channels=64, num_classes=5)))


def test_name_defaults_to_the_backbones():
    assert MODELS.build({**CONFIG, 'name': None}).name == 'CifarResNet'


def test_mmpretrain_backbones_fit():
    backbone = dict(type='mmpretrain.LeNet5')
    network = Classifier(backbone, dict(in_channels=120, num_classes=3))
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 3)


def test_plain_turns_configs_into_builtins():
    config = Config(dict(a=dict(b=(1, dict(c=2))), d=[3.5, 'x', None]))
    result = plain(config._cfg_dict)
    assert result == dict(a=dict(b=[1, dict(c=2)]), d=[3.5, 'x', None])
    assert type(result) is dict and type(result['a']) is dict and type(result['a']['b'][1]) is dict


def test_modes_and_devices_are_a_modules():
    network = MODELS.build(CONFIG)
    assert isinstance(network.neck, nn.Identity)
    assert network.double()(torch.randn(1, 1, 16, 16).double()).dtype == torch.float64


def test_a_neck_may_pool():
    """As the one of mmpretrain's configs does."""
    parts = dict(
        backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18),
        head=dict(num_classes=4, in_channels=512),
        input_shape=(3, 32, 32),
        mean=[0, 0, 0],
        std=[1, 1, 1],
    )
    pooled = MODELS.build(
        dict(type='Classifier', neck=dict(type='mmpretrain.GlobalAveragePooling'), **parts)
    ).eval()
    plain = MODELS.build(dict(type='Classifier', **parts)).eval()
    plain.load_state_dict(pooled.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(pooled(images), plain(images))
    assert torch.equal(pooled.extract(images).vector, pooled.extract(images).map)
