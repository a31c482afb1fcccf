# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from torch import nn

from mmdfkd.models.generators import VAEEncoder
from mmdfkd.models.losses import gaussian_kl
from mmdfkd.utils import UsageError


def test_latents_of_the_published_encoder(golden, fill_by_sine):
    arrays = golden('pre_dfkd')
    network = fill_by_sine(VAEEncoder((3, 32, 32), 1000).double(), 0.02).train()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == arrays['enc/n_params'] == 4_321_872
    mean, log_variance = network(arrays['enc/image'].double())
    close = dict(atol=1e-9, rtol=0)
    torch.testing.assert_close(mean[:, ::10], arrays['enc/mu'], **close)
    torch.testing.assert_close(log_variance[:, ::10], arrays['enc/log_var'], **close)
    expected = arrays['enc/kld_1e-5']
    torch.testing.assert_close(1e-5 * gaussian_kl(mean, log_variance), expected, **close)


@pytest.mark.parametrize('shape', [(1, 6, 6), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 7, 9)])
def test_shapes(shape):
    network = VAEEncoder(shape, 5, widths=(4, 6, 8))
    mean, log_variance = network(torch.randn(2, *shape))
    assert mean.shape == log_variance.shape == (2, 5)


def test_the_brightness_of_a_column_is_not_seen():
    network = VAEEncoder((1, 8, 8), 5, widths=(4, 4, 4)).eval()
    images = torch.randn(2, 1, 8, 8)
    scaled = images * torch.rand(2, 1, 1, 8).add(0.5)
    torch.testing.assert_close(network(scaled), network(images))


def test_first_weights_are_those_of_the_published_code():
    """Uniform in +-0.08, whose standard deviation is 0.16 / sqrt 12; biases 0."""
    network = VAEEncoder((3, 32, 32), 100)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.weight.abs().max() <= 0.08 and not layer.bias.any()
            assert layer.weight.std().item() == pytest.approx(0.16 / 12**0.5, rel=0.05)
    assert VAEEncoder((1, 8, 8), 5, widths=(4, 4, 4), init_range=None).mean.bias.any()


def test_slope_of_both_activations():
    network = VAEEncoder((1, 8, 8), 5, widths=(4, 4, 4), slope=0.1)
    activations = [m for m in network.modules() if isinstance(m, nn.LeakyReLU)]
    assert [activation.negative_slope for activation in activations] == [0.1, 0.1]


def test_images_too_small():
    with pytest.raises(UsageError, match=r'5 x 32 pixels leave nothing'):
        VAEEncoder((1, 5, 32), 5)
