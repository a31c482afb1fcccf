# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.discriminators import BigGANDiscriminator, TeacherDiscriminator
from mmdfkd.models.discriminators.biggan import DownBlock

CLOSE = dict(rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('place', 'before', 'activate', 'halve'),
    [('first', 3, False, True), ('mid', 6, True, True), ('last', 6, True, False)],
)
def test_blocks_of_published_code(golden, fill_biggan, place, before, activate, halve):
    arrays = golden('hidfd')
    block = DownBlock(before, 6, activate, halve).double().train()
    fill_biggan(block, arrays, f'D_dblock_{place}.')
    made = block(arrays[f'D_dblock_{place}_x'].double())
    torch.testing.assert_close(made, arrays[f'D_dblock_{place}_out'].double(), **CLOSE)


def test_judgement_of_published_code(golden, fill_biggan):
    arrays = golden('hidfd')
    network = BigGANDiscriminator(5, (3, 32, 32), 12, width=2, align_hidden=10).double()
    fill_biggan(network, arrays, 'E_D.', is_discriminator=True).train()
    says = network(arrays['E_xreal'].double())
    for key, value in dict(out=says.score[:, None], adc=says.classes, reg=says.aligned).items():
        expected = arrays[f'E_D_real_only_{key}'].double()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=2e-4, msg=key)


def test_on_the_features_of_a_teacher(golden):
    """Published as an alternative; the golden teacher pools 8 x 8 pixels, then one layer, ReLU."""
    arrays = golden('hidfd')
    pooled = torch.nn.functional.avg_pool2d(arrays['G_x'].double(), 8).flatten(1)
    features = (pooled @ arrays['E_teacher_w1'].double().t()).relu()
    network = TeacherDiscriminator(5, (3, 32, 32), 12, width=2).double()
    mine = {'G_D.linear.': network.heads.score, 'G_D.adc.': network.heads.classes}
    for prefix, layer in (*mine.items(), ('G_D.linear_map.', network.linear)):
        norm = layer.parametrizations.weight
        norm.original.data = arrays[f'{prefix}weight'].double()
        layer.bias.data = arrays[f'{prefix}bias'].double()
        norm[0].u = arrays[f'{prefix}u0'].double().flatten()
    says = network.train()(features)
    torch.testing.assert_close(says.score[:, None], arrays['G_out'].double(), **CLOSE)
    torch.testing.assert_close(says.classes, arrays['G_adc'].double(), **CLOSE)


@pytest.mark.parametrize(('classes', 'size', 'key'), [(10, 32, 'c10'), (200, 64, 'tiny')])
def test_published_sizes(golden, classes, size, key):
    """The published one has four more heads on its 256 (1,024) features, which nothing uses."""
    with torch.device('meta'):
        network = BigGANDiscriminator(classes, (3, size, size), 512)
    width = network.heads.score.in_features
    unused = 2 * (width + 1) * classes + (width + 1) * (classes + 1) + width * classes
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found + unused == golden('hidfd')[f'P_{key}_D_params']


def halving(**options):
    """Which blocks halve the map."""
    with torch.device('meta'):
        network = BigGANDiscriminator(3, feature_size=4, width=1, **options)
    return [isinstance(block.pool, torch.nn.AvgPool2d) for block in network.blocks]


def test_which_blocks_halve_the_map():
    """Maps of 8 x 8 places are left of 32 pixels, of 4 x 4 of 64, unless told otherwise."""
    assert halving(input_shape=(3, 32, 32)) == [True, True, False, False]
    assert halving(input_shape=(3, 64, 64)) == [True] * 4 + [False]
    assert halving(input_shape=(3, 32, 32), halvings=3) == [True, True, True, False]
    assert halving(input_shape=(3, 16, 16), multiples=(1, 1, 1)) == [True, True, False]


@pytest.mark.parametrize('kind', [BigGANDiscriminator, TeacherDiscriminator])
def test_first_weights_and_widths(kind):
    network = kind(50, (3, 32, 32), 100, width=16, align_hidden=30)
    inputs = (3, 32, 32) if network.judges == 'images' else (100,)
    assert network(torch.randn(2, *inputs)).aligned.shape == (2, 100)
    align = [layer.out_features for layer in network.heads.align]
    assert align == [30, 100] and network.heads.score.in_features == 64
    assert kind(50, (3, 32, 32), 100, width=2).heads.align[0].out_features == 16 * 2
    for name, parameter in network.named_parameters():
        if parameter.numel() > 200 and parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


def test_heads_fit_weights_that_have_moved():
    """A single row has the spectral norm one at once, in eval mode too."""
    score = TeacherDiscriminator(3, (3, 32, 32), 4, width=2).eval().heads.score
    score.parametrizations.weight.original.data.normal_()
    assert score.weight.norm().item() == pytest.approx(1)
