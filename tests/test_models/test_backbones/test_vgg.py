# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torchvision.models import vgg13_bn

from mmdfkd.models.backbones import SmallVGG
from mmdfkd.utils import UsageError


def test_layers_are_torchvisions_with_two_pools_less():
    torch.manual_seed(0)
    reference = vgg13_bn().eval().features[:-1]  # its fifth pool left out
    network = SmallVGG(13, num_pools=4).eval()
    weights = zip(network.state_dict().values(), reference.state_dict().values(), strict=True)
    for ours, theirs in weights:  # same layers in the same order
        ours.copy_(theirs)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images)[0], reference(images))


@pytest.mark.parametrize(
    ('size', 'pools', 'sides'),
    [
        (32, 3, (32, 16, 8, 4, 4)),
        (64, 4, (64, 32, 16, 8, 4)),
    ],
)
def test_maps(size, pools, sides):
    network = SmallVGG(8, pools, in_channels=1, out_indices=range(5))
    maps = network(torch.randn(1, 1, size, size))
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512]
    assert tuple(m.shape[2] for m in maps) == tuple(m.shape[3] for m in maps) == sides
    assert all(m.min() >= 0 for m in maps)  # after a ReLU


def test_convolutions_have_biases_of_zero():
    biases = [p for name, p in SmallVGG(8).named_parameters() if name.endswith('0.bias')]
    assert len(biases) == 5 and not any(b.any() for b in biases)


@pytest.mark.parametrize('wrong', [dict(depth=12), dict(num_pools=5), dict(out_indices=(0,))])
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=f'SmallVGG: {next(iter(wrong))}='):
        SmallVGG(**wrong)
