# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.models.classifiers import (
    BatchNormFolding,
    ForeignClassifier,
    load_classifier,
    network_fingerprint,
    save_classifier,
)
from mmdfkd.models.classifiers.folding import folded_weights
from mmdfkd.models.modules import record_batch_statistics, record_instance_features
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

IMAGES = dict(input_shape=(3, 16, 16), mean=[120.0] * 3, std=[60.0] * 3)
RESNET = dict(type='CifarResNet', depth=8, widths=(2, 4, 6), out_indices=(0, 1, 2))


def frozen(network):
    """A frozen network whose BatchNorm layers do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
    return network.eval().requires_grad_(False)


def classifier(backbone, channels):
    head = dict(in_channels=channels, num_classes=5)
    return frozen(MODELS.build(dict(type='Classifier', backbone=backbone, head=head, **IMAGES)))


@pytest.fixture
def network():
    return classifier(RESNET, 6)


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16)


def test_weights_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0).eval()
    for tensor, value in (
        *((conv.weight, 2.0), (conv.bias, 1.0), (norm.weight, 6.0), (norm.bias, 5.0)),
        *((norm.running_mean, 3.0), (norm.running_var, 4.0)),
    ):
        nn.init.constant_(tensor, value)
    weight, bias = folded_weights(conv, norm)  # s = 6 / sqrt(4) = 3
    assert weight.tolist() == [[[[6.0]]]]  # 3 * 2
    assert bias.tolist() == [-1.0]  # 3 * (1 - 3) + 5
    plain = nn.BatchNorm2d(1, eps=0.0, affine=False).eval()
    plain.load_state_dict(norm.state_dict(), strict=False)
    weight, bias = folded_weights(nn.Conv2d(1, 1, 1, bias=False), plain)
    assert bias.tolist() == [-1.5]  # s = 1 / 2, (0 - 3) / 2


@pytest.mark.parametrize(
    ('backbone', 'channels', 'folded', 'total'),
    [
        (RESNET, 6, 9, 9),  # stem, three blocks of two, two shortcuts
        # Pre-activation: the second one of each of three blocks. The stem's output goes into the
        # first block's BatchNorm and, if the channels stay 16, around it.
        (dict(type='WideResNet', depth=10, widen_factor=2), 128, 4, 7),
        (dict(type='WideResNet', depth=10, widen_factor=1), 64, 3, 7),
        (dict(type='SmallVGG', depth=13), 512, 10, 10),
        (
            dict(
                type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=4, stem_channels=4,
                num_stages=4, out_indices=(3,), style='pytorch',
            ),
            32, 20, 20,
        ),
    ],
)  # fmt: skip
def test_folded_networks_compute_the_same(backbone, channels, folded, total, images, monkeypatch):
    network = classifier(backbone, channels)
    expected, before = network.extract(images), network_fingerprint(network)
    calls = []
    batch_norm = F.batch_norm
    monkeypatch.setattr(F, 'batch_norm', lambda *a, **k: calls.append(1) or batch_norm(*a, **k))
    state = torch.get_rng_state()
    folding = BatchNormFolding(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert (len(folding.pairs), folding.total) == (folded, total)
    calls.clear()
    with folding.active():
        found = network.extract(images)
    assert len(calls) == total - folded
    for a, b in zip((*found.maps, *found[1:]), (*expected.maps, *expected[1:]), strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    assert torch.equal(network(images), expected.logits)  # outside, it is what it was
    assert network_fingerprint(network) == before


def test_gradient_to_the_images_is_the_same(network, images):
    def gradient():
        leaf = images.clone().requires_grad_()
        network(leaf).square().sum().backward()
        return leaf.grad

    expected, folding = gradient(), BatchNormFolding(network)
    with folding.active():
        torch.testing.assert_close(gradient(), expected, rtol=1e-4, atol=1e-5)


def test_who_reads_statistics_or_features_reads_the_true_ones(network, images):
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with record_batch_statistics(network) as expected, record_instance_features(norms) as features:
        logits = network(images)
    with BatchNormFolding(network).active():
        with record_batch_statistics(network) as seen, record_instance_features(norms) as heard:
            assert torch.equal(network(images), logits)
        assert not torch.equal(network(images), logits)  # nobody listens any more: rounding
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(seen, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(heard, features, strict=True))


def test_who_listens_to_a_convolution_hears_its_own_output(network, images):
    conv, heard = network.backbone.conv1, []
    expected = conv(images)
    handle = conv.register_forward_hook(lambda module, inputs, output: heard.append(output))
    logits = network(images)
    with BatchNormFolding(network).active():
        heard.clear()
        torch.testing.assert_close(network(images), logits)
    handle.remove()
    assert len(heard) == 1 and torch.equal(heard[0], expected)


def test_its_file_and_its_copies_do_not_know(network, images, tmp_path):
    expected, names = network(images), list(network.state_dict())
    folding = BatchNormFolding(network)
    assert list(network.state_dict()) == names
    with folding.active():
        save_classifier(tmp_path / 'network.pth', network, {})
        folded = network(images)
        twin = copy.deepcopy(network)
    assert torch.equal(load_classifier(tmp_path / 'network.pth').eval()(images), expected)
    assert torch.equal(twin(images), folded)
    nn.init.zeros_(twin.head.fc.weight)  # it has tensors of its own
    assert torch.equal(network(images), expected)
    folding.undo()
    assert not any(name.startswith('folded') for m in network.modules() for name in m._buffers)
    assert {type(m) for m in network.modules()} & {nn.Conv2d, nn.BatchNorm2d} == {
        *(nn.Conv2d, nn.BatchNorm2d)
    }


class Scaled(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Tricky(nn.Module):
    """One pair that can be folded among many that only look like it."""

    def __init__(self):
        super().__init__()
        for name in ('good', 'changed', 'shared', 'twice'):
            setattr(self, name, nn.Conv2d(3, 3, 1))
        self.scaled = Scaled(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(6))
        self.classifier = nn.Linear(3, 5)

    def forward(self, x):
        x = self.norms[0](self.good(x))
        x = self.norms[1](F.relu(self.changed(x), inplace=True))
        shared = self.shared(x)
        x = self.norms[2](shared) + shared
        x = self.norms[3](self.twice(x))
        x = self.norms[4](self.twice(x))
        x = self.norms[5](self.scaled(x))
        return self.classifier(x.mean((2, 3)))


def tricky():
    return frozen(Tricky())


def test_only_what_is_a_pair_is_folded(images):
    network = ForeignClassifier('test_folding:tricky', **IMAGES).eval().requires_grad_(False)
    expected, folding = network(images), BatchNormFolding(network)
    assert [pair.conv for pair in folding.pairs] == [network.network.good]
    assert folding.total == 6 and type(network.network.shared) is nn.Conv2d
    with folding.active():
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


def test_a_network_in_training_is_refused(network):
    with pytest.raises(UsageError, match='cannot be folded.*frozen network in eval mode'):
        BatchNormFolding(network.train())
    with pytest.raises(UsageError, match='cannot be folded'):
        BatchNormFolding(network.eval().requires_grad_(True))


def test_nothing_is_folded_in_train_mode(network, images):
    folding, twin = BatchNormFolding(network), copy.deepcopy(network)
    with folding.active():
        found = network.train()(images)
    assert torch.equal(found, twin.train()(images))
    assert torch.equal(network.backbone.bn1.running_mean, twin.backbone.bn1.running_mean)
