# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
import torch.distributed as dist

from mmdfkd.models.losses import MixDistributionContrastiveLoss, cross_view_contrast, nt_xent
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-4)


def test_hand_worked_values():
    # B = 2, two orthogonal images with equal views, tau = 0.5. NT-Xent: cosines of an anchor to
    # the other three are 1 (positive), 0, 0, so L = -log(e^2 / (e^2 + 2)) = log(1 + 2 e^-2).
    views = torch.eye(2)
    expected = math.log(1 + 2 * math.exp(-2))  # 0.239545
    assert nt_xent(views, views, 0.5).item() == pytest.approx(expected, abs=1e-6)
    # Eq. (15): -log(e^2 / e^0) = -2 without the positive below, log(1 + e^-2) with it
    assert cross_view_contrast(views, views, 0.5).item() == pytest.approx(-2.0, abs=1e-6)
    with_positive = cross_view_contrast(views, views, 0.5, positive_in_denominator=True)
    assert with_positive.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_matches_published_code(kd3_golden):
    first, second = kd3_golden['con_z1'], kd3_golden['con_z2']
    for temperature, expected in zip(
        kd3_golden['con_temps'].tolist(), kd3_golden['con_loss'].tolist(), strict=True
    ):
        assert nt_xent(first, second, temperature).item() == pytest.approx(expected, abs=1e-5)
    raw = nt_xent(kd3_golden['con_raw1'], kd3_golden['con_raw2'], 0.3)
    torch.testing.assert_close(raw, kd3_golden['con_raw_loss_t0.3'], **CLOSE)


def test_gradient_matches_published_code(kd3_golden):
    first = kd3_golden['con_z1'].clone().requires_grad_()
    second = kd3_golden['con_z2'].clone().requires_grad_()
    nt_xent(first, second, 0.3).backward()
    torch.testing.assert_close(first.grad, kd3_golden['con_grad_z1_t0.3'], **CLOSE)
    torch.testing.assert_close(second.grad, kd3_golden['con_grad_z2_t0.3'], **CLOSE)


@pytest.mark.parametrize(
    ('included', 'name'), [(False, 'derived_eq15_excl_pos'), (True, 'derived_eq15_incl_pos')]
)
def test_cross_view_matches_the_printed_equation(kd3_golden, included, name):
    loss = cross_view_contrast(kd3_golden['con_z1'], kd3_golden['con_z2'], 0.3, included)
    torch.testing.assert_close(loss, kd3_golden[name], **CLOSE)


@pytest.mark.parametrize(
    'contrast',
    [
        lambda a, b: nt_xent(a, b, 0.2),
        lambda a, b: cross_view_contrast(a, b, 0.2),
        lambda a, b: cross_view_contrast(a, b, 0.2, positive_in_denominator=True),
    ],
)
def test_gradcheck(contrast):
    torch.manual_seed(0)
    first = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrast, (first, second))


@pytest.mark.parametrize('contrast', [nt_xent, cross_view_contrast])
def test_batch_of_one_is_exactly_zero(contrast):
    torch.manual_seed(0)
    first = torch.randn(1, 8, requires_grad=True)
    loss = contrast(first, torch.randn(1, 8), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert first.grad.abs().max() == 0


def test_equal_embeddings():
    # every cosine is 1: -log(1 / (2B - 1)) = log 7 for B = 4
    same = torch.ones(4, 5)
    assert nt_xent(same, same, 0.3).item() == pytest.approx(math.log(7), abs=1e-6)


def test_invariances():
    torch.manual_seed(0)
    first, second = torch.randn(5, 6), torch.randn(5, 6)
    loss = nt_xent(first, second, 0.3)
    torch.testing.assert_close(nt_xent(second, first, 0.3), loss)
    torch.testing.assert_close(nt_xent(3 * first, 0.1 * second, 0.3), loss)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.3), loss)
    torch.testing.assert_close(
        cross_view_contrast(first[order], second[order], 0.3),
        cross_view_contrast(first, second, 0.3),
    )


def test_zero_vector_and_small_temperature_stay_finite():
    torch.manual_seed(0)
    first = torch.randn(3, 4)
    first[0] = 0
    first.requires_grad_()
    for contrast in (nt_xent, cross_view_contrast):
        first.grad = None
        loss = contrast(first, torch.randn(3, 4), 1e-3)  # exp(1 / tau) overflows
        loss.backward()
        assert loss.isfinite() and first.grad.isfinite().all()


def test_autocast_computes_in_float32():
    torch.manual_seed(0)
    first, second = torch.randn(16, 32).bfloat16(), torch.randn(16, 32).bfloat16()
    expected = nt_xent(first.float(), second.float(), 0.1)
    expected_cross = cross_view_contrast(first.float(), second.float(), 0.1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(nt_xent(first, second, 0.1), expected)
        torch.testing.assert_close(cross_view_contrast(first, second, 0.1), expected_cross)


@pytest.mark.parametrize(
    ('form', 'function'), [('nt_xent', nt_xent), ('cross_view', cross_view_contrast)]
)
def test_module_is_the_weighted_function(form, function):
    torch.manual_seed(0)
    clean, perturbed = torch.randn(4, 8), torch.randn(4, 8)
    module = MODELS.build(dict(type='MixDistributionContrastiveLoss', form=form))
    torch.testing.assert_close(module(clean, perturbed), 0.01 * function(clean, perturbed, 0.3))


@pytest.mark.parametrize('wrong', [dict(temperature=0.0), dict(form='simclr')])
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        MixDistributionContrastiveLoss(**wrong)


def _embeddings():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)


FORMS = {
    'nt_xent': nt_xent,
    'cross_view': cross_view_contrast,
    'cross_view_with_positive': lambda a, b, t: cross_view_contrast(a, b, t, True),
}


def _loss_and_gradient(contrast, views, linear):
    """Embed both views by one shared linear map, as a network would."""
    linear = linear.clone().requires_grad_()
    loss = contrast(views[0] @ linear, views[1] @ linear, 0.3)
    loss.backward()
    return loss.detach(), linear.grad


def _two_ranks(rank, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2)
    views, linear = _embeddings(), torch.eye(4, dtype=torch.float64)
    results = {}
    for form, contrast in FORMS.items():
        loss, gradient = _loss_and_gradient(contrast, views[:, 3 * rank : 3 * rank + 3], linear)
        dist.all_reduce(loss)
        dist.all_reduce(gradient)
        results[form] = (loss / 2, gradient / 2)  # what DistributedDataParallel's averaging gives
    if rank == 0:
        torch.save(results, f'{folder}/results.pt')
    dist.destroy_process_group()


@pytest.mark.dist
def test_two_processes_equal_one(in_two_processes, tmp_path):
    in_two_processes(_two_ranks, str(tmp_path))
    results = torch.load(tmp_path / 'results.pt', weights_only=True)
    for form, contrast in FORMS.items():
        loss, gradient = _loss_and_gradient(
            contrast, _embeddings(), torch.eye(4, dtype=torch.float64)
        )
        torch.testing.assert_close(results[form][0], loss, atol=1e-6, rtol=0)
        torch.testing.assert_close(results[form][1], gradient, atol=1e-6, rtol=0)
