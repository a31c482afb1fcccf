# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmdfkd.models.losses import VAELoss, gaussian_kl, vae_loss
from mmdfkd.utils import UsageError


def test_divergence_by_hand():
    # one latent: mu = 2, sigma^2 = 1: 4 / 2 = 2; another: mu = 0, sigma^2 = e: (e - 1 - 1) / 2
    mean, log_variance = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    expected = 2 + (math.e - 2) / 2
    assert gaussian_kl(mean, log_variance).item() == pytest.approx(expected)
    both = gaussian_kl(torch.cat([mean, 0 * mean]), torch.cat([log_variance, 0 * log_variance]))
    assert both.item() == pytest.approx(expected / 2)  # a mean over images


def test_divergence_of_torch():
    mean, log_variance = torch.randn(4, 7).double(), torch.randn(4, 7).double()
    normal = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(normal, Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_gradients():
    inputs = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda a, b, c, d: vae_loss([a], [b], c, d, 0.1), inputs)


def test_value_by_hand():
    zero = torch.zeros(2, 3)
    images = torch.tensor([[1.0, -1.0], [3.0, 1.0]])  # mean absolute value 1.5
    logits = torch.tensor([[0.0], [1.0]])  # 0.5
    value = vae_loss([images, logits], [0 * images, 0 * logits], zero, zero)
    assert value.item() == pytest.approx(2.0)
    assert vae_loss([images], [images], zero, zero).item() == 0
    value = vae_loss([images], [images], zero + 1, zero, kl_weight=0.1)  # KL: 3 / 2
    assert value.item() == pytest.approx(0.15)


def test_module_chooses_views():
    mean, log_variance = torch.randn(2, 3), torch.randn(2, 3)
    ours = {name: torch.randn(2, 4) for name in ('pixel', 'logit', 'feature')}
    targets = {name: torch.randn(2, 4) for name in ('pixel', 'logit', 'feature')}
    for views in (('pixel', 'logit'), ('feature',), ('pixel', 'logit', 'feature')):
        module = VAELoss(views=views, kl_weight=0.5, loss_weight=2.0)
        pairs = [ours[v] for v in views], [targets[v] for v in views]
        expected = 2 * vae_loss(*pairs, mean, log_variance, 0.5)
        torch.testing.assert_close(module(ours, targets, mean, log_variance), expected)
    default = VAELoss()
    expected = vae_loss(*([v['pixel'], v['logit']] for v in (ours, targets)), mean, log_variance)
    torch.testing.assert_close(default(ours, targets, mean, log_variance), expected)


def test_half_precision_is_computed_in_single():
    latents = torch.full((2, 3), 9.0)
    value = vae_loss([torch.zeros(2).bfloat16()], [torch.ones(2)], latents, latents.bfloat16())
    assert value.dtype == torch.float32 and value.isfinite()


@pytest.mark.parametrize(
    ('views', 'words'), [((), 'views is empty'), (('pixels',), "views='pixels'.*'pixel'")]
)
def test_usage_errors(views, words):
    with pytest.raises(UsageError, match=words):
        VAELoss(views=views)
