# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdfkd.models.generators import TransposedGenerator, UpsamplingGenerator
from mmdfkd.models.generators.generator import dcgan_init
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

ROOT = Path(__file__).parents[3]
UNIT = dict(mean=[0.0] * 3, std=[255.0] * 3)  # images as a sigmoid leaves them
GREY = dict(mean=[78.0], std=[82.6])


def generator(kind=UpsamplingGenerator, shape=(3, 32, 32), **options):
    inputs = dict(mean=[120.0] * shape[0], std=[60.0] * shape[0])
    return kind(shape, **{**inputs, **options})


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Against published generators -----------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'shape', 'options'),
    [
        ('dfad_cifar', (3, 32, 32), dict(latent_size=256)),
        ('dfad_mnist', (1, 32, 32), dict(latent_size=100)),
        ('zskt', (3, 32, 32), dict(latent_size=100, head='bn')),
        ('dfq', (3, 32, 32), dict(latent_size=256, head='sigmoid', bias=False, **UNIT)),
        (
            'dfq_large',
            (3, 32, 32),
            dict(latent_size=256, head='sigmoid', bias=False, widths=(256, 128, 64), **UNIT),
        ),
    ],
)
def test_images_of_published_generators(golden, fill_by_sine, name, shape, options):
    arrays = golden('generators')
    network = fill_by_sine(generator(shape=shape, **options).double()).train()
    count = torch.arange(3 * options['latent_size'], dtype=torch.float64)
    latent = (0.7 * count + 0.1).cos().view(3, -1)
    close = dict(atol=1e-6, rtol=0, check_dtype=False)
    with torch.no_grad():
        seen = network(latent)[:, :, ::4, ::4]
        torch.testing.assert_close(seen, arrays[f'{name}/image_train'], **close)
        network.eval()
        seen = network(latent)[:, :, ::4, ::4]
        torch.testing.assert_close(seen, arrays[f'{name}/image_eval_after'], **close)
    state = network.state_dict()
    last = 'bn3' if f'{name}/bn3.running_mean' in arrays else 'bn2'
    ours = 'head.norm' if last == 'bn3' else 'blocks.1.2'
    for statistic in ('running_mean', 'running_var'):
        expected = arrays[f'{name}/{last}.{statistic}']
        torch.testing.assert_close(state[f'{ours}.{statistic}'], expected, **close)


@pytest.mark.parametrize('name', ['gen', 'mem'])
def test_images_of_pre_dfkd(golden, fill_by_sine, name):
    """With and without spectral norm, whose vectors are filled likewise."""
    arrays = golden('pre_dfkd')
    options = dict(latent_size=1000, eps=0.8, spectral_norm=name == 'gen')
    network = fill_by_sine(generator(**options).double()).train()
    vectors = [b for n, b in network.named_buffers() if n.endswith(('.u', '.v'))]
    assert len(vectors) == (6 if name == 'gen' else 0)
    for k, vector in enumerate(vectors, 1):
        vector.copy_((k * torch.arange(1, len(vector) + 1, dtype=torch.float64)).sin())
        vector.div_(vector.norm())
    assert size(network) == arrays[f'{name}/n_params']
    latent = (0.7 * torch.arange(3000, dtype=torch.float64) + 0.1).cos().view(3, -1)
    close = dict(atol=1e-6, rtol=0, check_dtype=False)
    with torch.no_grad():
        images = network(latent)[:, :, ::4, ::4]
        torch.testing.assert_close(images, arrays[f'{name}/image_train'], **close)
        images = network.eval()(latent)[:, :, ::4, ::4]
        torch.testing.assert_close(images, arrays[f'{name}/image_eval_after'], **close)
    for statistic in ('running_mean', 'running_var'):
        expected = arrays[f'{name}/after_train_bn3.{statistic}']
        torch.testing.assert_close(getattr(network.head.norm, statistic), expected, **close)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('official_l5_i8_c3', dict(eps=0.8)),
        ('mmrazor_l5_i8_h8_eps0p8', dict(eps=0.8, widths=(8, 8, 4))),
        ('mmrazor_l5_i8_h8_eps1em5', dict(widths=(8, 8, 4))),
    ],
)
def test_images_of_dafl(golden, fill_by_hash, name, options):
    arrays = golden('generators')
    network = fill_by_hash(generator(shape=(3, 8, 8), latent_size=5, **options)).train()
    close = dict(atol=2e-5, rtol=0)
    with torch.no_grad():
        images = network(arrays['dafl/z'])
        torch.testing.assert_close(images, arrays[f'dafl/{name}/train_out'], **close)
        images = network.eval()(arrays['dafl/z'])
        torch.testing.assert_close(images, arrays[f'dafl/{name}/eval_out_after1'], **close)
    norm = network.head.norm
    torch.testing.assert_close(norm.running_mean, arrays[f'dafl/{name}/last_running_mean'], **close)
    torch.testing.assert_close(norm.running_var, arrays[f'dafl/{name}/last_running_var'], **close)


# Sizes ----------------------------------------------------------------------------------------

# Of the networks as published; those of 28, 64 and 224 pixels are counted layer by layer.
COUNTS = [
    ('dafl', (3, 32, 32), {}, 8_423_939),
    ('dafl', (3, 64, 64), {}, 33_024_515),
    ('dafl', (3, 224, 224), dict(latent_size=100), 40_765_955),
    ('dafl', (1, 32, 32), dict(latent_size=100), 1_049_985),
    ('dafl', (1, 28, 28), dict(latent_size=100), 856_065),
    ('dfad', (3, 32, 32), {}, 2_329_091),
    ('zskt', (3, 32, 32), {}, 1_051_145),
    ('dfq', (3, 32, 32), {}, 2_328_899),
    ('dfq', (3, 32, 32), dict(widths=(256, 128, 64)), 4_581_955),
    ('transposed', (3, 128, 128), {}, 11_243_203),
    ('pre', (3, 32, 32), {}, 8_423_939),
    ('pre_memory', (3, 32, 32), {}, 8_423_939),
]


@pytest.mark.parametrize(('name', 'shape', 'options', 'count'), COUNTS)
def test_parameters(name, shape, options, count):
    config = Config.fromfile(ROOT / 'configs/_base_/networks/generators.py').generators[name]
    config = dict(type='UpsamplingGenerator') | config.to_dict() | options
    with torch.device('meta'):
        network = MODELS.build(
            dict(config, input_shape=shape, mean=[0.0] * shape[0], std=[1.0] * shape[0])
        )
    assert size(network) == count


# 28 = 7 * 4 = 14 * 2; five widths are four up-samplings
@pytest.mark.parametrize('shape', [(1, 28, 28), (1, 32, 32), (3, 64, 64), (3, 128, 128), (2, 8, 4)])
@pytest.mark.parametrize('widths', [(4, 4, 2), (4, 2)])
@pytest.mark.parametrize('kind', [UpsamplingGenerator, TransposedGenerator])
def test_shapes(kind, widths, shape):
    network = generator(kind, shape, latent_size=3, widths=widths)
    assert network(torch.randn(2, 3)).shape == (2, *shape)
    assert network(torch.randn(2, 3, 1, 1)).shape == (2, *shape)


@pytest.mark.parametrize('kind', [UpsamplingGenerator, TransposedGenerator])
@pytest.mark.parametrize(('side', 'ups'), [(30, 2), (28, 3), (33, 1)])
def test_sizes_out_of_reach(kind, side, ups):
    with pytest.raises(UsageError, match=rf'{side} x {side}.*multiples of {2**ups}.*widths'):
        generator(kind, (3, side, side), widths=(4,) * (ups + 1))


# A row 0 4 8 12 enlarged twice, edges held: 0 1 3 5 7 9 11 12 (quarters of the way between pixels).
def test_enlarged_images_are_smooth():
    network = generator(shape=(1, 8, 8), latent_size=4, widths=(4, 4), enlarge=2, head='bn').eval()
    network.head.norm.eps = 0.0
    network.conv.register_forward_hook(lambda *_: torch.arange(0.0, 16, 4).expand(1, 1, 4, 4))
    assert network.start == (2, 2)
    rows = torch.tensor([0.0, 1, 3, 5, 7, 9, 11, 12]).expand(8, 8)
    torch.testing.assert_close(network(torch.randn(1, 4))[0, 0].detach(), rows)
    with pytest.raises(UsageError, match=r'2 times and enlarges it 3 times.*multiples of 12'):
        generator(widths=(4, 4, 4), enlarge=3)


# Heads ----------------------------------------------------------------------------------------


def test_tanh_bn_standardises_each_channel():
    images = generator(latent_size=16, widths=(8, 8, 4))(torch.randn(64, 16))
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    variances = images.var((0, 2, 3), correction=0)
    assert variances.min() > 0.98 and variances.max() <= 1


# Black and white are 0 and 255: normalised, (0 - 78) / 82.6 and (255 - 78) / 82.6.
@pytest.mark.parametrize('head', ['sigmoid', 'tanh'])
def test_pixels_lie_between_black_and_white(head):
    network = generator(shape=(1, 8, 8), latent_size=4, widths=(4, 4), head=head, **GREY)
    network.conv.weight.data.mul_(1e4)
    images = network(torch.randn(8, 4)).detach()
    torch.testing.assert_close(images.min(), torch.tensor(-78 / 82.6))
    torch.testing.assert_close(images.max(), torch.tensor(177 / 82.6))
    network.conv.weight.data.zero_()
    network.conv.bias.data.zero_()  # half grey, 127.5
    torch.testing.assert_close(network(torch.randn(1, 4)), torch.full((1, 1, 8, 8), 49.5 / 82.6))


def test_bn_is_unbounded_and_has_weights():
    network = generator(latent_size=4, widths=(4, 4), head='bn')
    assert network.head.norm.weight.requires_grad
    assert network(torch.randn(32, 4)).abs().max() > 2


def test_unknown_head():
    with pytest.raises(UsageError, match='softmax.*tanh_bn'):
        generator(head='softmax')


# Behaviour ------------------------------------------------------------------------------------


def test_batch_norm_couples_the_batch():
    network = generator(latent_size=4, widths=(4, 4)).train()
    latent = torch.randn(8, 4)
    images = network(latent)
    torch.testing.assert_close(network(latent), images)
    assert not torch.allclose(network(latent[:4]), images[:4], atol=1e-3)
    network.eval()
    torch.testing.assert_close(network(latent[:4]), network(latent)[:4])


def test_options():
    plain = generator(latent_size=4, widths=(4, 4, 2), bias=False, first_norm=False, slope=0)
    assert isinstance(plain.norm, nn.Identity)
    assert [block[1].bias for block in plain.blocks] == [None, None]
    assert plain.conv.bias is not None
    assert [block[3].negative_slope for block in plain.blocks] == [0, 0]
    leaky = [
        generator(TransposedGenerator, widths=(4, 4), **slope) for slope in ({}, dict(slope=0))
    ]
    assert [network.blocks[0][2].negative_slope for network in leaky] == [0.2, 0]
    loose = generator(latent_size=4, widths=(4, 4, 2), eps=0.8)
    assert [block[2].eps for block in loose.blocks] == [0.8, 0.8]
    assert loose.norm.eps == loose.head.norm.eps == 1e-5  # as published


def test_initialisation_of_pre_dfkd():
    network = generator(latent_size=64, widths=(16, 16, 8), init_range=0.08, spectral_norm=True)
    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) == 4
    for layer in layers:
        assert not layer.bias.any()
    originals = [
        p for n, p in network.named_parameters() if n.endswith(('original', 'linear.weight'))
    ]
    assert len(originals) == 4
    for weight in originals:
        assert weight.abs().max() <= 0.08
        # variance of U(-r, r): r^2 / 3
        assert weight.std().item() == pytest.approx(0.08 / 3**0.5, rel=0.1)


def test_first_weights_behind_a_spectral_norm():
    """What it divides is drawn, not the quotient."""
    network = generator(latent_size=4, widths=(16, 16), spectral_norm=True)
    conv = network.blocks[0][1]
    before = conv.parametrizations.weight.original.detach().clone()
    dcgan_init(network)
    weight = conv.parametrizations.weight.original
    assert not torch.equal(weight, before)
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_spectral_norm_of_a_generator():
    network = generator(latent_size=4, widths=(4, 4), spectral_norm=True).train()
    with torch.no_grad():
        for _ in range(200):
            network(torch.randn(2, 4))
    for layer in (network.blocks[0][1], network.conv):
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=1e-4)


def test_initialisation_of_dcgan():
    network = generator(TransposedGenerator, latent_size=64, widths=(64, 64, 64))
    weights = torch.cat([block[0].weight.flatten() for block in network.blocks])
    assert weights.mean().abs() < 1e-3 and abs(weights.std() - 0.02) < 1e-3
    scales = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(scales.mean() - 1) < 0.01 and 0.01 < scales.std() < 0.03
    assert not network.linear.bias.any() and not network.conv.bias.any()
