# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.losses import CategoryFrequencySmoothing
from mmdfkd.utils import UsageError

CLOSE = dict(rtol=1e-5, atol=1e-6)
TAGS = [('effective', True), ('inverse', True), ('inverse', False)]


def published(mode, convex=True):
    return CategoryFrequencySmoothing(
        5, loss_weight=1.0, mode=mode, convex=convex, first=50, first_counts=512
    )


@pytest.mark.parametrize(('mode', 'convex'), TAGS)
def test_three_refreshes_of_published_code(golden, mode, convex):
    arrays = golden('hidfd')
    tag = f'C_{mode}_{"convex" if convex else "sum"}'
    smoothing = published(mode, convex)
    assert torch.equal(smoothing.weight, arrays[f'{tag}_w0'].float())
    for step in range(3):
        images = arrays[f'C_x{step}'].clone().requires_grad_()
        logits = images.flatten(1) @ arrays['C_teacher_W']
        loss = smoothing(logits)
        torch.testing.assert_close(loss.detach(), arrays[f'{tag}_loss{step}'], **CLOSE)
        loss.backward()
        torch.testing.assert_close(images.grad, arrays[f'{tag}_grad{step}'], rtol=1e-4, atol=1e-6)
        smoothing.count(logits.argmax(1))
        assert torch.equal(smoothing.counts, arrays[f'{tag}_pred{step}'].double())
        smoothing.refresh()
        torch.testing.assert_close(smoothing.frequency, arrays[f'{tag}_count{step + 1}'])
        expected = arrays[f'{tag}_w{step + 1}'].float()
        torch.testing.assert_close(smoothing.weight, expected, **CLOSE)


@pytest.mark.parametrize('mode', ['effective', 'inverse'])
def test_skewed_counts_of_published_code(golden, mode):
    arrays = golden('hidfd')
    smoothing = published(mode)
    counts = torch.tensor([400.0, 200, 100, 40, 0], dtype=torch.float64)
    smoothing.counts = counts.clone()
    smoothing.refresh()
    torch.testing.assert_close(smoothing.frequency, arrays[f'C_skew_{mode}_count'])
    expected = arrays[f'C_skew_{mode}_w'].float()
    torch.testing.assert_close(smoothing.weight, expected, **CLOSE)
    images = arrays['C_skew_x'].clone().requires_grad_()
    loss = smoothing(images.flatten(1) @ arrays['C_teacher_W'])
    torch.testing.assert_close(loss.detach(), arrays[f'C_skew_{mode}_loss'], **CLOSE)
    smoothing.counts = counts
    smoothing.refresh()
    torch.testing.assert_close(smoothing.frequency, arrays[f'C_skew_{mode}_count_second'])
    expected = arrays[f'C_skew_{mode}_w_second'].float()
    torch.testing.assert_close(smoothing.weight, expected, **CLOSE)


def test_worked_example():
    """N = 50 and c = (400, ..., 0): N = 225, 125, 75, 45, 25; inverse, so that the mean is one."""
    smoothing = CategoryFrequencySmoothing(5, mode='inverse')
    smoothing.counts += torch.tensor([400.0, 200, 100, 40, 0])
    smoothing.refresh()
    assert smoothing.frequency.tolist() == [225, 125, 75, 45, 25]
    expected = torch.tensor([0.253, 0.455, 0.758, 1.263, 2.273])
    torch.testing.assert_close(smoothing.weight, expected, rtol=0, atol=1e-3)
    assert smoothing.counts.sum() == 0


def test_uniform_predictions_have_the_least_loss():
    smoothing = CategoryFrequencySmoothing(4, loss_weight=1.0)
    assert smoothing(torch.zeros(3, 4)).item() == pytest.approx(-math.log(4), rel=1e-6)


def test_probabilities_that_underflow():
    logits = torch.tensor([[2000.0, 0, 0, 0]], requires_grad=True)
    loss = CategoryFrequencySmoothing(4)(logits)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_rare_classes_are_pulled_towards_the_others():
    """Free logits, of which class 4 is rare: it grows, and more with weights than without."""
    start = torch.tensor([2.0, 0, 0, 0, -2])
    shares = [start.softmax(0)]
    for interval in (0, 1):
        logits = start.clone().requires_grad_()
        smoothing = CategoryFrequencySmoothing(5, loss_weight=1.0, interval=interval)
        smoothing.counts += 500 * shares[0]
        smoothing.refresh_when_due(1)
        optimizer = torch.optim.SGD([logits], lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            smoothing(logits[None]).backward()
            optimizer.step()
        shares.append(logits.detach().softmax(0))
    first, plain, weighted = (share[4] for share in shares)
    assert weighted > plain > first
    first, plain, weighted = ((share * (5 * share).log()).sum() for share in shares)
    assert weighted < first and plain < first


@pytest.mark.parametrize('classes', [2, 3])
def test_few_classes_keep_equal_weights(classes):
    """There a larger weight would push a class down: 1 + ln(1/2) > 0."""
    smoothing = CategoryFrequencySmoothing(classes)
    smoothing.count(torch.zeros(90, dtype=torch.long))
    smoothing.refresh()
    assert smoothing.frequency[0] > smoothing.frequency[1]
    assert torch.equal(smoothing.weight, torch.ones(classes))


def test_four_classes_are_weighted():
    """N = 25 and three times 75, so that 1 / N is 3 : 1 : 1 : 1; their mean is one."""
    smoothing = CategoryFrequencySmoothing(4)
    smoothing.counts += torch.tensor([0.0, 100, 100, 100])
    smoothing.refresh()
    torch.testing.assert_close(smoothing.weight, torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3]))


def test_a_class_that_is_never_seen_counts_as_one_image():
    smoothing = CategoryFrequencySmoothing(4)
    for _ in range(10):  # 50 / 2^10 < 1
        smoothing.counts[1:] += 100
        smoothing.refresh()
    assert smoothing.frequency[0] == 1
    assert smoothing.weight[0] / smoothing.weight[1] == pytest.approx(100, abs=0.1)


def test_refreshes_when_due_and_remembers_them():
    smoothing = CategoryFrequencySmoothing(4, interval=2)
    for iteration, label in enumerate([1, 1, 3, 2], start=1):
        smoothing.count(torch.tensor([label]))
        smoothing.refresh_when_due(iteration)
    assert smoothing.earliest.tolist() == [0, 2, 0, 0]
    assert smoothing.latest.tolist() == [0, 0, 1, 1]
    other = CategoryFrequencySmoothing(4)
    other.load_state_dict(smoothing.state_dict())
    assert torch.equal(other.latest, smoothing.latest)
    assert torch.equal(other.weight, smoothing.weight)
    never = CategoryFrequencySmoothing(4, interval=0)
    never.count(torch.tensor([1]))
    never.refresh_when_due(100)
    assert not never.latest.any() and never.counts.sum() == 1


def test_images_of_all_processes_are_counted(monkeypatch):
    monkeypatch.setattr(
        'mmdfkd.models.losses.category_frequency.gather_batch',
        lambda labels: torch.cat([labels, torch.tensor([3])]),  # another process saw one of class 3
    )
    smoothing = CategoryFrequencySmoothing(4)
    smoothing.count(torch.tensor([1, 1]))
    assert smoothing.counts.tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(mode='linear'), 'model.smoothing.mode'),
        (dict(beta=1.0), 'model.smoothing.beta is 1.0'),
        (dict(decay=-0.1), 'model.smoothing.decay is -0.1'),
        (dict(interval=-1), 'model.smoothing.interval is -1'),
        (dict(first=0), 'model.smoothing.first is 0'),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(UsageError, match=words):
        CategoryFrequencySmoothing(5, **options)
