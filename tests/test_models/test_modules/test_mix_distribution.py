# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.modules import MixDistribution, mix_distribution
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

CLOSE = dict(atol=1e-5, rtol=1e-4)


def test_hand_worked_values():
    # One channel, two pixels: (1, 3) has mean 2, unbiased variance 2; (0, 8) mean 4, variance 32.
    # m = 1/2: deviation of the mix (sqrt 2 + 4 sqrt 2) / 2 = 2.5 sqrt 2, mean 3. Scales 2.5 and
    # 0.625, so (1, 3) -> 2.5 * (-1, 1) + 3 = (0.5, 5.5), (0, 8) -> 0.625 * (-4, 4) + 3 = same.
    images = torch.tensor([[1.0, 3.0], [0.0, 8.0]]).view(2, 1, 1, 2)
    out = mix_distribution(images, torch.tensor([0.5, 0.5]), torch.tensor([1, 0]), eps=0.0)
    for row in out.flatten(1).tolist():
        assert row == pytest.approx([0.5, 5.5], abs=1e-5)
    # m = 0, eps = 1: deviations sqrt 3 and sqrt 33, so (1, 3) -> sqrt 11 * (-1, 1) + 4
    out = mix_distribution(images, torch.tensor([0.0, 1.0]), torch.tensor([1, 0]), eps=1.0)
    assert out[0].flatten().tolist() == pytest.approx([0.683375, 7.316625], abs=1e-5)
    assert out[1].flatten().tolist() == pytest.approx([0.0, 8.0], abs=1e-5)


@pytest.mark.parametrize('case', ['mix', 'mix2'])
def test_matches_published_code(kd3_golden, case):
    images, coefficients = kd3_golden[f'{case}_x'], kd3_golden[f'{case}_lmda'].flatten()
    out = mix_distribution(images, coefficients, kd3_golden[f'{case}_perm'])
    torch.testing.assert_close(out, kd3_golden[f'{case}_out'], **CLOSE)


def test_extreme_coefficients():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 6, 6) * (0.5 + torch.rand(4, 3, 1, 1)) + torch.randn(4, 3, 1, 1)
    partner = torch.tensor([1, 2, 3, 0])
    torch.testing.assert_close(mix_distribution(images, torch.ones(4), partner), images)
    out = mix_distribution(images, torch.zeros(4), partner)
    torch.testing.assert_close(out.mean((2, 3)), images[partner].mean((2, 3)), **CLOSE)
    torch.testing.assert_close(out.std((2, 3)), images[partner].std((2, 3)), atol=1e-4, rtol=1e-3)
    # the content stays: every channel is an increasing affine map of itself
    ranks, expected = out.flatten(2).argsort(2), images.flatten(2).argsort(2)
    assert torch.equal(ranks, expected)


def test_constant_image_and_batch_of_one_stay_finite():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 4)
    images[0] = 0.7
    out = mix_distribution(images, torch.tensor([0.0, 0.3]), torch.tensor([1, 0]))
    assert out.isfinite().all()
    # a constant image has no content to stretch: it becomes its partner's mean
    mean = images[1].mean((1, 2), keepdim=True).expand(3, 4, 4)
    torch.testing.assert_close(out[0], mean, atol=1e-3, rtol=0)
    for single in (images[:1], images[1:]):
        out = MixDistribution().train()(single)
        torch.testing.assert_close(out, single, atol=1e-5, rtol=0)


@pytest.mark.parametrize('batch', [2, 5])
def test_keeps_memory_format_and_dtype(batch):
    torch.manual_seed(0)
    images = torch.randn(batch, 3, 6, 6)
    coefficients, permutation = torch.rand(batch), torch.randperm(batch)
    expected = mix_distribution(images, coefficients, permutation)
    assert expected.is_contiguous()
    last = images.to(memory_format=torch.channels_last)
    out = mix_distribution(last, coefficients, permutation)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected)
    half = mix_distribution(images.half(), coefficients, permutation)
    in_float = mix_distribution(images.half().float(), coefficients, permutation)
    assert torch.equal(half, in_float.half())  # rounded once, at the end


def test_gradcheck():
    torch.manual_seed(0)
    images = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    coefficients = torch.rand(3, dtype=torch.float64)
    permutation = torch.tensor([1, 2, 0])
    assert torch.autograd.gradcheck(
        lambda x: mix_distribution(x, coefficients, permutation), images
    )


def test_identity_in_eval_mode_only():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 5, 5)
    module = MODELS.build(dict(type='MixDistribution', alpha=1.0))
    assert module.eval()(images) is images
    assert (module.train()(images) - images).abs().max() > 0.01
    assert not module.state_dict()


def test_seed_decides_the_draw():
    images, module = torch.randn(8, 3, 5, 5), MixDistribution()
    torch.manual_seed(3)
    first = module(images)
    torch.manual_seed(3)
    assert torch.equal(module(images), first)
    assert not torch.equal(module(images), first)


def test_a_million_draws():
    # Beta(0.1, 0.1): P(min(m, 1 - m) < 0.01) = 0.641, < 0.05: 0.755 (regularised incomplete beta
    # function, 2 * I_x(0.1, 0.1)). In float32 the gamma variates behind it often underflow.
    torch.manual_seed(0)
    coefficients, permutation = MixDistribution().draw(torch.empty(1_000_000, 1))
    assert ((coefficients >= 0) & (coefficients <= 1)).all()  # false for NaN
    edge = torch.minimum(coefficients, 1 - coefficients)
    assert (edge < 0.01).float().mean().item() == pytest.approx(0.641, abs=3e-3)
    assert (edge < 0.05).float().mean().item() == pytest.approx(0.755, abs=3e-3)
    assert coefficients.mean().item() == pytest.approx(0.5, abs=3e-3)
    assert torch.equal(permutation.sort().values, torch.arange(1_000_000))


def test_prob_leaves_images_alone():
    torch.manual_seed(0)
    images = torch.randn(2000, 1, 2, 2)
    torch.testing.assert_close(MixDistribution(prob=0.0)(images), images, atol=1e-5, rtol=0)
    changed = (MixDistribution(alpha=1.0, prob=0.3)(images) - images).abs() > 1e-4
    assert changed.flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_module_adds_its_eps():
    images = torch.randn(4, 2, 3, 3)
    module = MixDistribution(alpha=1.0, eps=1.0)
    torch.manual_seed(3)
    draw = module.draw(images)
    torch.manual_seed(3)
    assert torch.equal(module(images), mix_distribution(images, *draw, eps=1.0))


@pytest.mark.parametrize('wrong', [dict(alpha=0.0), dict(prob=1.5)])
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        MixDistribution(**wrong)
