# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.selectors import DynamicSelector
from mmdfkd.models.selectors.dynamic_selector import class_thresholds, combine, ramp
from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils import UsageError


def select(selector, teacher_logits, student_logits=None, epoch=1, max_epochs=240):
    student_logits = teacher_logits if student_logits is None else student_logits
    return selector(
        teacher_logits=teacher_logits,
        student_logits=student_logits,
        epoch=epoch,
        max_epochs=max_epochs,
    )


# Against the published code -------------------------------------------------------------------


@pytest.mark.parametrize('epoch', [1, 60, 110, 119, 120])
def test_selection_of_the_published_code(kd3_golden, epoch):
    selector = DynamicSelector(threshold=kd3_golden['sel_a_vth'].item(), ramp='official')
    teacher, student = kd3_golden['sel_a_logits_t'], kd3_golden['sel_a_logits_s']
    selection = select(selector, teacher, student, epoch)
    expected = {
        name: kd3_golden[f'sel_a_e{epoch}_{name}']
        for name in ('teacher_weight', 'prob', 'pred', 'count', 'thr', 'idx')
    }
    assert torch.equal(selection.pseudo_labels, expected['pred'].long())
    assert torch.equal(selection.counts, expected['count'].long())
    assert torch.equal(selection.indices, expected['idx'].long())
    assert selection.student_weight == pytest.approx(1 - expected['teacher_weight'].item())
    torch.testing.assert_close(selection.confidence, expected['prob'], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(selection.thresholds, expected['thr'], atol=1e-6, rtol=1e-6)


def test_tie_and_empty_class_of_the_published_code(kd3_golden):
    selector = DynamicSelector(teacher_weight=1.0, min_selected=0)
    selection = select(selector, kd3_golden['sel_edge_logits_t'], kd3_golden['sel_edge_logits_s'])
    assert selection.counts.tolist() == [3, 3, 2, 0]
    torch.testing.assert_close(selection.thresholds, torch.tensor([0.95, 0.95, 0.475, 0.0]))
    torch.testing.assert_close(selection.confidence, kd3_golden['sel_edge_prob'])
    assert selection.indices.tolist() == kd3_golden['sel_edge_idx'].tolist() == [0, 3]


def test_official_ramp_epoch_by_epoch(kd3_golden):
    weights = [ramp(t, 240, 'official') for t in kd3_golden['ramp_epoch'].tolist()]
    assert weights == pytest.approx(kd3_golden['ramp_student_weight'].tolist(), abs=1e-12)


# Equation by equation -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('form', 'table'),
    [
        # exp(-5 (1 - (t+1)/160)^2), jumping to 1 at 120
        ('official', {1: 0.00763, 20: 0.02297, 80: 0.29554, 119: 0.73162, 120: 1.0, 150: 1.0}),
        # exp(-5 (1 - t/120)^2), continuous
        ('paper', {1: 0.00732, 20: 0.03105, 80: 0.57375, 119: 0.99965, 120: 1.0, 150: 1.0}),
    ],
)
def test_ramp_table(form, table):
    for epoch, expected in table.items():
        assert ramp(epoch, 240, form) == pytest.approx(expected, abs=5e-6)


def test_paper_ramp_scales_with_the_training():
    assert ramp(0, 240) == pytest.approx(math.exp(-5))
    assert ramp(5, 40) == ramp(30, 240)
    weights = [ramp(t, 40) for t in range(1, 41)]
    assert weights == sorted(weights) and weights[18] < 1 and weights[19:] == [1.0] * 21
    assert ramp(1, 1) == 1.0


@pytest.mark.parametrize(
    ('norm', 'expected'),
    [
        ('convex', [0.95, 0.316667, 0.05, 0.0]),  # r / (2 - r): 1, 1/3, 1/19, 0
        ('linear', [0.95, 0.475, 0.095, 0.0]),
        ('none', [0.95, 0.95, 0.95, 0.95]),
    ],
)
def test_thresholds(norm, expected):
    thresholds = class_thresholds(torch.tensor([10, 5, 1, 0]), 0.95, norm)
    torch.testing.assert_close(thresholds, torch.tensor(expected), atol=1e-6, rtol=0)
    assert class_thresholds(torch.tensor([3, 2]), 0.95)[1].item() == pytest.approx(0.475)  # r=2/3


def test_combining_logits_and_probabilities():
    teacher = torch.log(torch.tensor([[0.9, 0.1]]))
    student = torch.log(torch.tensor([[0.1, 0.9]]))
    # 3/4 and 1/4. Logits: odds 9^(3/4) * 9^(-1/4) = 3. Probabilities: .75 * .9 + .25 * .1 = .7
    logits = combine(teacher, student, 0.25, 'logits')
    torch.testing.assert_close(logits, torch.tensor([[0.75, 0.25]]))
    probs = combine(teacher, student, 0.25, 'probs')
    torch.testing.assert_close(probs, torch.tensor([[0.7, 0.3]]))
    for space in ('logits', 'probs'):
        for weight, alone in ((0.0, teacher), (1.0, student)):
            assert torch.equal(combine(teacher, student, weight, space), alone.softmax(1))
        rows = combine(torch.randn(20, 7), torch.randn(20, 7), 0.3, space).sum(1)
        torch.testing.assert_close(rows, torch.ones(20))


def confident(*confidences):
    """Logits of two classes: class 0 with each confidence."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_strictly_above_the_threshold():
    logits = torch.zeros(3, 4)  # every confidence is exactly 1/4, all of class 0: T = V_th
    selector = DynamicSelector(threshold=0.25, min_selected=0)
    with pytest.raises(UsageError, match='selection is empty'):
        select(selector, logits)
    assert select(DynamicSelector(threshold=0.2499), logits).indices.tolist() == [0, 1, 2]


def test_hand_worked_selection():
    # class 0 four times, class 1 twice: T = 0.95 and 0.95 / 3 = 0.3167, which all of class 1 beat
    logits = confident(0.96, 0.94, 0.951, 0.5001, 0.3, 0.45)
    selection = select(DynamicSelector(min_selected=0), logits)
    assert selection.pseudo_labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert selection.indices.tolist() == [0, 2, 4, 5]
    assert selection.indices.dtype == torch.int64


@pytest.mark.parametrize(
    ('norm', 'kept'),
    [
        ('convex', [0, 4, 5]),  # 0.95 and 0.95 / 3
        ('linear', [0, 4]),  # 0.95 and 0.475, which the last misses
        ('none', [0]),
    ],
)
def test_norm_of_the_selector(norm, kept):
    sure = [[0.96, 0.02, 0.02], [0.94, 0.03, 0.03], [0.7, 0.2, 0.1], [0.6, 0.2, 0.2]]
    rare = [[0.1, 0.8, 0.1], [0.27, 0.46, 0.27]]
    selection = select(DynamicSelector(norm=norm, min_selected=0), torch.tensor(sure + rare).log())
    assert selection.counts.tolist() == [4, 2, 0]
    assert selection.indices.tolist() == kept


def test_what_the_selector_combines():
    # half and half: odds (9 / 1)^(1/2) (3/2)^(-1/2) of logits, (0.9 + 0.4) / 2 of probabilities
    teacher, student = confident(0.9), confident(0.4)
    for space, expected in (('logits', 6**0.5 / (1 + 6**0.5)), ('probs', 0.65)):
        selector = DynamicSelector(teacher_weight=0.5, combine=space)
        confidence = select(selector, teacher, student).confidence
        assert confidence.item() == pytest.approx(expected)


# Invariances ----------------------------------------------------------------------------------


@pytest.fixture
def pool():
    torch.manual_seed(1)
    return 3 * torch.randn(400, 10), 3 * torch.randn(400, 10)


def test_permuting_the_pool_permutes_the_selection(pool):
    order = torch.randperm(400)
    selector = DynamicSelector()
    chosen = select(selector, *pool, epoch=60).indices
    permuted = select(selector, pool[0][order], pool[1][order], epoch=60).indices
    assert 64 < len(chosen) < 400
    assert sorted(order[permuted].tolist()) == chosen.tolist()
    assert permuted.tolist() == sorted(permuted.tolist())


def test_adding_a_constant_to_logits_changes_nothing(pool):
    shifted = [logits + 5 * torch.randn(400, 1) for logits in pool]
    selector = DynamicSelector(combine='probs')
    for first, second in zip(
        select(selector, *pool, epoch=60)[1:3],
        select(selector, *shifted, epoch=60)[1:3],
        strict=True,
    ):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(('weight', 'network'), [(1.0, 0), (0.0, 1)])
@pytest.mark.parametrize('epoch', [1, 240])
def test_one_network_alone(pool, weight, network, epoch):
    selection = select(DynamicSelector(teacher_weight=weight), *pool, epoch=epoch)
    alone = select(DynamicSelector(), pool[network], pool[network], epoch=epoch)
    assert torch.equal(selection.indices, alone.indices)
    assert torch.equal(selection.pseudo_labels, pool[network].argmax(1))
    assert selection.student_weight == 1 - weight


# Random, few, none ----------------------------------------------------------------------------


def test_random_mode_keeps_as_many(pool):
    criterion = select(DynamicSelector(), *pool, epoch=60)
    draws = [select(DynamicSelector(mode='random'), *pool, epoch=60) for _ in range(2)]
    for draw in draws:
        indices = draw.indices.tolist()
        assert len(set(indices)) == len(criterion.indices)
        assert indices == sorted(indices) and 0 <= indices[0] and indices[-1] < 400
        assert torch.equal(draw.thresholds, criterion.thresholds)
    assert draws[0].indices.tolist() != draws[1].indices.tolist()
    assert draws[0].indices.tolist() != criterion.indices.tolist()


def test_too_few_are_filled_up_by_confidence():
    logits = confident(0.6, 0.96, 0.9, 0.55, 0.8)
    assert select(DynamicSelector(min_selected=0), logits).indices.tolist() == [1]
    assert select(DynamicSelector(min_selected=3), logits).indices.tolist() == [1, 2, 4]
    assert select(DynamicSelector(), logits).indices.tolist() == [0, 1, 2, 3, 4]


def test_filling_up_keeps_what_beats_its_threshold():
    sure_of_first, sure_of_second = confident(*[0.9] * 7, 0.55), confident(0.6).flip(1)
    logits = torch.cat([sure_of_first, sure_of_second])  # the last alone beats its low bar
    assert select(DynamicSelector(min_selected=0), logits).indices.tolist() == [8]
    chosen = select(DynamicSelector(min_selected=3), logits).indices.tolist()
    assert len(chosen) == 3 and 8 in chosen and 7 not in chosen


def test_a_negative_fill_is_refused():
    with pytest.raises(UsageError, match=r'min_selected is -1.*>= 0'):
        DynamicSelector(min_selected=-1)


def test_nothing_left_says_what_to_do():
    selector = DynamicSelector(threshold=0.99, min_selected=0)
    with pytest.raises(UsageError, match=r'V_th = 0\.99.*model\.selector\.threshold.*min_selected'):
        select(selector, confident(0.6, 0.7))


@pytest.mark.parametrize(
    'wrong',
    [
        dict(threshold=0.0),
        dict(threshold=1.5),
        dict(teacher_weight=-0.1),
        dict(ramp='linear'),
        dict(combine='both'),
        dict(norm='softmax'),
        dict(mode='best'),
    ],
)
def test_wrong_settings_are_named(wrong):
    (key,) = wrong
    with pytest.raises(UsageError, match=rf'model\.selector\.{key}'):
        TASK_UTILS.build(dict(type='DynamicSelector', **wrong))
