# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from mmdfkd.models.losses import BNStatisticsLoss, bn_statistics_loss
from mmdfkd.models.modules import BatchStatistics, record_batch_statistics
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

# Batch mean (3, 1) and variance (5, 2) against the remembered (1, -1) and (4, 1):
# |(1, 1)| + |(2, 2)| = sqrt 2 + sqrt 8.
LAYER = BatchStatistics(*torch.tensor([[3.0, 1], [5, 2], [1, -1], [4, 1]]))


def test_worked_values():
    assert bn_statistics_loss([LAYER]).item() == pytest.approx(4.242641, abs=1e-6)
    assert bn_statistics_loss([LAYER, LAYER]).item() == pytest.approx(8.485281, abs=1e-6)
    # (4 + 5) / 8 - ln sqrt(5 / 4) - 1/2 and (4 + 2) / 2 - ln sqrt(2) - 1/2
    expected = 9 / 8 - math.log(5 / 4) / 2 + 3 - math.log(2) / 2 - 1
    assert bn_statistics_loss([LAYER], 'gauss_kl').item() == pytest.approx(expected, abs=1e-6)


def test_gauss_kl_is_that_of_the_batch_from_the_stored():
    mean, running_mean = torch.randn(2, 5, dtype=torch.float64)
    var, running_var = torch.rand(2, 5, dtype=torch.float64) + 0.1
    batch, stored = Normal(mean, var.sqrt()), Normal(running_mean, running_var.sqrt())
    layer = BatchStatistics(mean, var, running_mean, running_var)
    expected = kl_divergence(batch, stored).sum()
    torch.testing.assert_close(bn_statistics_loss([layer], 'gauss_kl'), expected)


@pytest.mark.parametrize('form', ['l2', 'gauss_kl'])
def test_agreement_is_zero_with_zero_gradient(form):
    mean, var = torch.tensor([1.0, -1]), torch.tensor([4.0, 1])
    batch = [mean.clone().requires_grad_(), var.clone().requires_grad_()]
    loss = bn_statistics_loss([BatchStatistics(*batch, mean, var)], form)
    loss.backward()
    assert loss.item() == 0
    assert not batch[0].grad.any() and not batch[1].grad.any()


@pytest.mark.parametrize('form', ['l2', 'gauss_kl'])
def test_constant_channels_are_finite(form):
    """A dead channel, here or in the original data."""
    zero, one = torch.zeros(1), torch.ones(1)
    for var, running_var in ((zero, one), (one, zero), (zero, zero)):
        var = var.clone().requires_grad_()
        loss = bn_statistics_loss([BatchStatistics(zero, var, zero, running_var)], form)
        loss.backward()
        assert loss <= 1e5 and var.grad.abs() <= 1e5  # whose square is no infinity in Adam


@pytest.mark.parametrize('form', ['l2', 'gauss_kl'])
def test_gradcheck(form):
    mean, running_mean = torch.randn(2, 3, dtype=torch.float64)
    var, running_var = torch.rand(2, 3, dtype=torch.float64) + 0.1

    def loss(mean, var):
        return bn_statistics_loss([BatchStatistics(mean, var, running_mean, running_var)], form)

    assert torch.autograd.gradcheck(loss, (mean.requires_grad_(), var.requires_grad_()))


def test_published_values(golden, toy_network):
    """The networks are those of the published runs, see tests/data/README.md."""
    arrays = golden('dfq')
    network = toy_network(4, arrays, 'bn/teacher').eval()
    with record_batch_statistics(network) as statistics:
        network(arrays['bn/x'])
    close = dict(atol=1e-9, rtol=0)
    for index, layer in enumerate(statistics):
        torch.testing.assert_close(layer.mean, arrays[f'bn/batch_mean{index}'], **close)
        torch.testing.assert_close(layer.var, arrays[f'bn/batch_var_biased{index}'], **close)
        l2 = arrays['bn/r_feature_l2'][index]
        torch.testing.assert_close(bn_statistics_loss([layer]), l2, **close)
        kl = arrays['paper_form/gauss_kl_per_layer_sum'][index]
        torch.testing.assert_close(bn_statistics_loss([layer], 'gauss_kl'), kl, **close)
    assert len(statistics) == 2
    total = bn_statistics_loss(statistics)
    torch.testing.assert_close(total, arrays['bn/sum_l2'], **close)


def test_weight_of_the_first_layer(golden, toy_network):
    """Ten times the first one, as DeepInversion for ImageNet; and its gradient without."""
    arrays = golden('deepinversion')
    network = toy_network(4, arrays, 'bn/teacher').eval()
    images = arrays['bn/x'].requires_grad_()
    with record_batch_statistics(network) as statistics:
        network(images)
    close = dict(atol=1e-9, rtol=0)
    for layer, expected in zip(statistics, arrays['bn/r_feature'], strict=True):
        torch.testing.assert_close(bn_statistics_loss([layer]), expected, **close)
    weighted = BNStatisticsLoss(first_weight=10.0)(statistics)
    torch.testing.assert_close(weighted, arrays['bn/sum_first_multiplier10'], **close)
    (gradient,) = torch.autograd.grad(bn_statistics_loss(statistics), images)
    torch.testing.assert_close(gradient, arrays['bn/d_sum_d_x'], **close)


def test_matched_images_are_the_minimum():
    """Descending on the images brings their statistics to the remembered ones."""
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.copy_(torch.tensor([1.0, -1]))
    norm.running_var.copy_(torch.tensor([4.0, 1]))
    images = torch.randn(4, 2, 5, 5, requires_grad=True)
    optimizer = torch.optim.Adam([images], lr=0.1)
    for _ in range(150):
        with record_batch_statistics(norm) as statistics:
            norm(images)
        loss = bn_statistics_loss(statistics, 'gauss_kl')
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([1, -1], abs=0.05)
    assert images.var((0, 2, 3), correction=0).tolist() == pytest.approx([4, 1], abs=0.1)


def test_module_is_the_weighted_function():
    module = MODELS.build(dict(type='BNStatisticsLoss', form='gauss_kl', loss_weight=0.5))
    torch.testing.assert_close(module([LAYER]), 0.5 * bn_statistics_loss([LAYER], 'gauss_kl'))


def test_usage_error():
    with pytest.raises(UsageError, match='form.*l2.*gauss_kl'):
        BNStatisticsLoss(form='l1')
