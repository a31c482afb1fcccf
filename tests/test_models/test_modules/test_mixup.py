# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.modules import Mixup, mix
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

PI = torch.tensor([[0, 1, 2], [1, 2, 0]])


def two(lam):
    return torch.tensor([[lam], [1 - lam]])


def test_hand_worked_mixtures():
    pair = torch.tensor([[1.0, 0, 4], [3, 2, 0]])
    mixed = mix(pair, two(0.3), torch.tensor([[0, 1], [1, 0]]))
    assert mixed[0].tolist() == pytest.approx([2.4, 1.4, 1.2])
    assert mixed[1].tolist() == pytest.approx([1.6, 0.6, 2.8])
    # one quarter of each unit vector, three of the next
    expected = [[0.25, 0.75, 0], [0, 0.25, 0.75], [0.75, 0, 0.25]]
    assert mix(torch.eye(3), two(0.25), PI).tolist() == expected
    weights, partners = torch.tensor([[0.5], [0.3], [0.2]]), torch.arange(3)
    three = mix(torch.eye(3), weights, torch.stack([partners, partners.roll(-1), partners.roll(1)]))
    assert three[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_cross_entropy_is_linear_in_mixed_labels():
    # -ln p: 1.407606 of class 0, 2.407606 of class 2
    logits = torch.tensor([[1.0, 2, 0]]).expand(2, 3)
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    swap = torch.tensor([[0, 1], [1, 0]])
    for lam, expected in ((0.3, 2.107606), (0.5, 1.907606)):
        mixed = mix(labels, two(lam), swap)
        loss = F.cross_entropy(logits[:1], mixed[:1])
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_every_sample_its_own_weight():
    """As many images as columns: a weight laid along the width would pass unnoticed."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 4, 4)
    kept = images.clone()
    weights = torch.rand(4)
    partners = torch.tensor([[0, 1, 2, 3], [3, 0, 1, 2]])
    mixed = mix(images, torch.stack([weights, 1 - weights]), partners)
    for i in range(4):
        expected = weights[i] * kept[i] + (1 - weights[i]) * kept[partners[1, i]]
        torch.testing.assert_close(mixed[i], expected)
    assert torch.equal(images, kept)  # not in place


def test_identities():
    torch.manual_seed(0)
    images = torch.randn(3, 2, 4, 4)
    assert torch.equal(mix(images, two(1.0), PI), images)
    assert torch.equal(mix(images, two(0.0), PI), images[PI[1]])
    stay = torch.arange(3).expand(2, 3)
    torch.testing.assert_close(mix(images, two(0.3), stay), images)
    # normalised before or after: the weights sum to 1
    torch.testing.assert_close(
        (mix(images, two(0.3), PI) - 0.5) / 0.2, mix((images - 0.5) / 0.2, two(0.3), PI)
    )
    last = images.to(memory_format=torch.channels_last)
    mixed = mix(last, two(0.3), PI)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mixed, mix(images, two(0.3), PI))


def test_bytes_are_refused():
    with pytest.raises(AssertionError, match='floating point, found torch.uint8'):
        mix(torch.zeros(3, 1, dtype=torch.uint8), two(0.3), PI)


@pytest.mark.parametrize('num_mix', [2, 3])
@pytest.mark.parametrize('per_sample', [False, True])
def test_draws(num_mix, per_sample):
    module = Mixup(num_mix=num_mix, per_sample=per_sample)
    weights, partners = module.draw(torch.empty(50, 1))
    assert weights.shape == (num_mix, 50 if per_sample else 1)
    torch.testing.assert_close(weights.sum(0), torch.ones(weights.shape[1]))
    assert torch.equal(partners[0], torch.arange(50))
    for partner in partners[1:]:
        assert torch.equal(partner.sort().values, torch.arange(50))
        assert not torch.equal(partner, torch.arange(50))


# Variance 1 / (4 (2a + 1)) of Beta(a, a): 0.083333 and 0.178571
@pytest.mark.parametrize(('alpha', 'variance'), [(1.0, 0.083333), (0.2, 0.178571)])
def test_many_weights(alpha, variance):
    lam = Mixup(alpha, per_sample=True).draw(torch.empty(200_000, 1))[0][0]
    assert ((lam >= 0) & (lam <= 1)).all()
    assert lam.mean().item() == pytest.approx(0.5, abs=3e-3)
    assert lam.var().item() == pytest.approx(variance, abs=1e-3)


def test_symmetric_dirichlet():
    # mean 1/3, variance (K - 1) / (K^2 (K a + 1)) = 2 / 36
    weights = Mixup(num_mix=3, per_sample=True).draw(torch.empty(200_000, 1))[0]
    for row in weights:
        assert row.mean().item() == pytest.approx(1 / 3, abs=3e-3)
        assert row.var().item() == pytest.approx(2 / 36, abs=1e-3)
    assert Mixup(0.01, 3, per_sample=True).draw(torch.empty(10_000, 1))[0].isfinite().all()


def test_one_draw_for_all_that_belongs_together():
    module = MODELS.build(dict(type='Mixup', per_sample=True))
    images = torch.eye(8).view(8, 8, 1, 1)
    mixed_images, mixed_labels = module(images, torch.eye(8))
    assert torch.equal(mixed_images.flatten(1), mixed_labels)
    assert (mixed_labels - torch.eye(8)).abs().max() > 0.01
    torch.manual_seed(3)
    (first,) = module(images)
    torch.manual_seed(3)
    assert torch.equal(module(images)[0], first)
    single = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(module(single)[0], single)  # nobody to mix with


def test_usage_errors():
    with pytest.raises(UsageError, match='alpha=0'):
        Mixup(alpha=0)
    with pytest.raises(UsageError, match='num_mix=1'):
        Mixup(num_mix=1)
