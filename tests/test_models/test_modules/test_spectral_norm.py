# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import torch
from torch import nn

from mmdfkd.models.modules import SpectralNorm, normalise_spectrum, statistics_kept


def test_singular_value_of_a_diagonal_matrix():
    """diag(3, 1): u converges to the first axis, sigma to 3."""
    weight = torch.diag(torch.tensor([3.0, 1.0]))
    norm = SpectralNorm(weight).train()
    for _ in range(50):
        normed = norm(weight)
    torch.testing.assert_close(normed, torch.diag(torch.tensor([1.0, 1 / 3])))
    torch.testing.assert_close(norm.u.abs(), torch.tensor([1.0, 0.0]))


def test_one_iteration_as_published():
    """Against PyTorch's hook of 2018, which is what was published with."""
    layer = nn.Conv2d(3, 4, 3).double()
    published = nn.utils.spectral_norm(copy.deepcopy(layer)).train()
    ours = normalise_spectrum(layer).double().train()
    norm = ours.parametrizations.weight[0]
    norm.u.copy_(published.weight_u)
    norm.v.copy_(published.weight_v)
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for step in range(3):
        if step == 2:
            published.eval()
            ours.eval()
        expected = published(images).square().sum()
        value = ours(images).square().sum()
        torch.testing.assert_close(value, expected)
        (gradient,) = torch.autograd.grad(value, ours.parametrizations.weight.original)
        torch.testing.assert_close(
            gradient, torch.autograd.grad(expected, published.weight_orig)[0]
        )
        torch.testing.assert_close(norm.u, published.weight_u)


def test_only_train_mode_moves_the_estimate():
    layer = normalise_spectrum(nn.Linear(5, 4))
    norm = layer.parametrizations.weight[0]
    inputs = torch.randn(2, 5)
    start = norm.u.clone()
    layer.eval()(inputs)
    assert torch.equal(norm.u, start)
    layer.train()
    with statistics_kept(layer):
        layer(inputs)
    assert torch.equal(norm.u, start) and norm.training
    layer(inputs)
    assert not torch.equal(norm.u, start)


def test_the_estimate_stays_where_it_is_in_memory():
    """Else a CUDA graph, whose results are overwritten by its next run, would lose it."""
    norm = SpectralNorm(torch.randn(4, 5)).train()
    places = [norm.u.data_ptr(), norm.v.data_ptr()]
    norm(torch.randn(4, 5))
    assert [norm.u.data_ptr(), norm.v.data_ptr()] == places


def test_several_passes_before_one_backward():
    layer = normalise_spectrum(nn.Linear(5, 4)).train()
    sum(layer(torch.randn(2, 5)).square().sum() for _ in range(3)).backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_half_precision_leaves_the_estimate_in_single():
    layer = normalise_spectrum(nn.Linear(5, 4)).train()
    with torch.autocast('cpu', torch.bfloat16):
        layer(torch.randn(2, 5))
    norm = layer.parametrizations.weight[0]
    assert norm.u.dtype == norm.v.dtype == torch.float32
    assert copy.deepcopy(layer)(torch.randn(2, 5)).shape == (2, 4)


def test_fresh_estimates_of_published_code(golden):
    """BigGAN's layers: two passes in train mode, one in eval mode, which forgets its step."""
    arrays = golden('hidfd')
    layer = nn.Conv2d(3, 5, 3, padding=1)
    layer.weight.data, layer.bias.data = arrays['D_snconv_w'], arrays['D_snconv_b']
    layer = normalise_spectrum(layer, fresh=True).train()
    norm = layer.parametrizations.weight[0]
    norm.u = arrays['D_snconv_u0'].flatten()
    close = dict(rtol=1e-5, atol=1e-5)
    for step in ('1', '2'):
        torch.testing.assert_close(
            layer(arrays['D_snconv_x']), arrays[f'D_snconv_y{step}'], **close
        )
        expected = arrays[f'D_snconv_u_after{step}'].flatten()
        torch.testing.assert_close(norm.u, expected, **close)
    torch.testing.assert_close(
        layer.eval()(arrays['D_snconv_x']), arrays['D_snconv_yeval'], **close
    )
    torch.testing.assert_close(norm.u, arrays['D_snconv_u_aftereval'].flatten(), **close)
