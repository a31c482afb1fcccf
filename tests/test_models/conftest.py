# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Fixtures shared by the tests of networks, losses and algorithms."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.models.classifiers import Classifier
from mmdfkd.registry import MODELS

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='session')
def golden():
    """Arrays of ``tests/data/NAME_golden.npz`` as tensors, see tests/data/README.md."""

    def read(name):
        with np.load(DATA / f'{name}_golden.npz') as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope='session')
def kd3_golden():
    """Numeric arrays of the published KD³ code as tensors, see tests/data/README.md."""
    with np.load(DATA / 'kd3_golden.npz') as arrays:
        return {
            name: torch.from_numpy(arrays[name])
            for name in arrays
            if arrays[name].dtype.kind != 'U'
        }


@pytest.fixture
def fill_by_hash():
    """Fill a network as the golden runs did, counting parameters from ``first``; see the README."""

    @torch.no_grad()
    def fill(network, first=0):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
        scales = [id(norm.weight) for norm in norms]
        for k, parameter in enumerate(network.parameters(), first):
            x = 2654435761 * np.arange(parameter.numel(), dtype=np.uint64)
            x = (x + np.uint64(40503 * k + 1)) % 2**32
            x = (0x45D9F3B * (x ^ (x >> 16))) % 2**32
            noise = torch.from_numpy((x ^ (x >> 16)) / 2**32 - 0.5).view_as(parameter)
            reach = 0.1 if parameter.ndim == 1 else (3 / parameter[0].numel()) ** 0.5
            parameter.copy_(2 * reach * noise + (id(parameter) in scales))
        return network

    return fill


@pytest.fixture(scope='session')
def fill_by_sine():
    """Element i of the k-th parameter, leaving out batch norms: reach sin((k + 1)(i + 1))."""

    @torch.no_grad()
    def fill(network, reach=0.05):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
        others = [p for p in network.parameters() if id(p) not in of_norms]
        for k, parameter in enumerate(others):
            count = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            parameter.copy_(reach * ((k + 1) * count).sin().view_as(parameter))
        return network

    return fill


@MODELS.register_module()
class ToyBackbone(nn.Module):
    """The backbone of golden numbers of generation: two convolutions, 3 -> w -> 2w channels."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)

    def forward(self, images):
        first = F.relu(self.bn1(self.conv1(images)))
        return first, F.relu(self.bn2(self.conv2(first)))


@pytest.fixture
def toy_network():
    """A classifier of 8-pixel colour images, in double precision, from golden arrays."""

    def build(width, arrays, group):
        state = of_group(arrays, group)
        cifar = dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])
        network = Classifier(
            dict(type='ToyBackbone', width=width),
            dict(in_channels=2 * width, num_classes=len(state['fc.bias'])),
            input_shape=(3, 8, 8),
            **cifar,
        ).double()
        network.load_state_dict(
            {('head.' if k.startswith('fc.') else 'backbone.') + k: v for k, v in state.items()}
        )
        return network

    return build


def of_group(arrays, group):
    """The golden arrays of a group, ``GROUP/NAME`` or ``GROUP.NAME``, by name."""
    prefixes = (f'{group}/', f'{group}.')
    return {key[len(group) + 1 :]: v for key, v in arrays.items() if key.startswith(prefixes)}


#: Published layers of the generation benchmarks' small generator and head, and ours.
GENERATION_NAMES = {
    'linear': 'linear',
    'bn0': 'norm',
    'conv1': 'blocks.0.1',
    'bn1': 'blocks.0.2',
    'conv2': 'conv',
    'fc1': 'hidden.0',
    'fc2': 'linear',
}


@pytest.fixture(scope='session')
def generation_state():
    """Golden tensors of a group of generator or head under our names."""

    def read(arrays, group):
        found = {}
        for key, value in of_group(arrays, group).items():
            layer, name = key.split('.')
            found[f'{GENERATION_NAMES[layer]}.{name}'] = value
        return found

    return read


#: Published names of a small BigGAN's tensors and ours, replaced in this order.
BIGGAN_NAMES = (
    (r'^blocks\.(\d)\.0\.', r'blocks.\1.'),
    (r'^output_layer\.0\.gain$', 'norm.weight'),
    (r'^output_layer\.0\.bias$', 'norm.bias'),
    (r'^output_layer\.0\.stored_mean$', 'norm.running_mean'),
    (r'^output_layer\.0\.stored_var$', 'norm.running_var'),
    (r'^output_layer\.2\.', 'conv.'),
    (r'^linear_cls_(\d)\.', lambda found: f'heads.align.{int(found[1]) - 1}.'),
    (r'^adc\.', 'heads.classes.'),
    (r'conv_sc\.', 'shortcut.'),
    (r'bn(\d)\.stored_mean$', r'norm\1.norm.running_mean'),
    (r'bn(\d)\.stored_var$', r'norm\1.norm.running_var'),
    (r'bn(\d)\.', r'norm\1.'),
)


def our_biggan_name(name, is_discriminator=False):
    """Our name of a parameter or buffer of theirs."""
    for theirs, own in BIGGAN_NAMES:
        name = re.sub(theirs, own, name)
    if is_discriminator:
        name = re.sub(r'^linear\.', 'heads.score.', name)
    layer, _, kind = name.rpartition('.')
    is_normalised = not re.search(r'(gain|bias|norm)$', layer)
    if kind == 'weight' and is_normalised:
        return f'{layer}.parametrizations.weight.original'
    return f'{layer}.parametrizations.weight.0.u' if kind == 'u0' else name


@pytest.fixture
def fill_biggan():
    """Fill a network with the published HiDFD code's tensors; every parameter gets one."""

    def fill(network, arrays, prefix, is_discriminator=False):
        state = dict(network.state_dict())
        found = {}
        for key, value in arrays.items():
            if key.startswith(prefix):
                name = our_biggan_name(key.removeprefix(prefix), is_discriminator)
                found[name] = value.view_as(state[name]).to(state[name].dtype)
        missing = {name for name, _ in network.named_parameters()} - found.keys()
        assert not missing, missing
        network.load_state_dict({**state, **found})
        return network

    return fill
