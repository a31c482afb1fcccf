# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.losses import AttentionTransferLoss, attention_map, attention_transfer
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

TEACHER = torch.tensor([[[[1.0, 2], [3, 4]], [[0, 1], [1, 0]]]], dtype=torch.float64)
STUDENT = torch.tensor(
    [[[[2.0, 0], [0, 2]], [[1, 1], [1, 1]], [[0, 0], [1, 0]]]], dtype=torch.float64
)


def test_maps_by_hand():
    # means of squares over 2 and 3 channels
    assert attention_map(TEACHER).flatten().tolist() == [0.5, 2.5, 5, 8]
    expected = [5 / 3, 1 / 3, 2 / 3, 5 / 3]
    assert attention_map(STUDENT).flatten().tolist() == pytest.approx(expected)
    assert attention_map(-TEACHER, p=1).flatten().tolist() == [0.5, 1.5, 2, 2]


# With Q = a / |a| the cosine is 0.758891: sum of squares 2 - 2 cos, mean a quarter of it
@pytest.mark.parametrize(
    ('form', 'expected'), [('mean', 0.120554), ('sum', 0.482217), ('norm', 0.694419)]
)
def test_values(form, expected):
    loss = attention_transfer(STUDENT, TEACHER, form=form)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    # scale of features and number of copies of the channels do not count
    torch.testing.assert_close(attention_transfer(STUDENT, 10 * TEACHER, form=form), loss)
    doubled = torch.cat([STUDENT, STUDENT], 1)
    torch.testing.assert_close(attention_transfer(doubled, TEACHER, form=form), loss)
    assert attention_transfer(3 * TEACHER, TEACHER, form=form).item() == pytest.approx(0, abs=1e-9)


def test_power_changes_the_loss():
    assert attention_transfer(STUDENT, TEACHER, p=1) < 0.9 * attention_transfer(STUDENT, TEACHER)
    torch.testing.assert_close(
        attention_transfer(STUDENT, TEACHER, p=2.0 + 1e-12), attention_transfer(STUDENT, TEACHER)
    )


def test_extremes():
    first, second = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    first[..., 0, 0], second[..., 1, 1] = 3.0, 5.0
    for form, worst in (('mean', 0.5), ('sum', 2.0), ('norm', math.sqrt(2))):
        loss = attention_transfer(first, second, form=form)
        assert loss.item() == pytest.approx(worst)
    # dead maps stay dead: no division by 0, no NaN in the gradient
    dead = torch.zeros(1, 1, 2, 2, requires_grad=True)
    for form in ('mean', 'sum', 'norm'):
        loss = attention_transfer(dead, first, form=form)
        loss.backward()
        assert loss.isfinite() and dead.grad.isfinite().all()
    constant = attention_transfer(torch.full((1, 7, 2, 2), 9.0), torch.ones(1, 2, 2, 2))
    assert constant.item() == pytest.approx(0, abs=1e-12)
    assert attention_transfer(torch.randn(4, 3, 1, 1), torch.randn(4, 5, 1, 1)).item() == 0


def test_batch_is_averaged():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 5, 6), torch.randn(4, 2, 5, 6)
    for form in ('mean', 'sum', 'norm'):
        each = [
            attention_transfer(student[i : i + 1], teacher[i : i + 1], 2, form) for i in range(4)
        ]
        loss = attention_transfer(student, teacher, 2, form)
        torch.testing.assert_close(loss, sum(each) / 4)
    cosine = F.cosine_similarity(
        attention_map(student).flatten(1), attention_map(teacher).flatten(1)
    )
    expected = ((2 - 2 * cosine) / 30).mean()
    torch.testing.assert_close(attention_transfer(student, teacher), expected)


def test_sizes_meet_at_the_smaller():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 8, 4), torch.randn(2, 2, 4, 6)
    pooled = [F.adaptive_avg_pool2d(attention_map(m)[:, None], (4, 4)) for m in (student, teacher)]
    # the maps are pooled, not the features: a square root gives features with those maps
    expected = attention_transfer(*[m.sqrt() for m in pooled])
    torch.testing.assert_close(attention_transfer(student, teacher), expected)
    features = F.adaptive_avg_pool2d(student, (4, 4)), F.adaptive_avg_pool2d(teacher, (4, 4))
    assert (attention_transfer(*features) - expected).abs() > 1e-4


def test_gradcheck_and_who_receives_gradient():
    torch.manual_seed(0)
    student = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    for p in (2.0, 3.0):
        for form in ('mean', 'sum', 'norm'):
            assert torch.autograd.gradcheck(
                lambda s, p=p, form=form: attention_transfer(s, teacher, p, form), student
            )
    attention_transfer(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


@pytest.mark.parametrize('p', [1.0, 2.0, 4.0])
def test_one_channel_stands_for_all(p):
    loss = AttentionTransferLoss(p=p)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 7, 5, 6)
    condensed = loss.condense(teacher)
    assert condensed.shape == (2, 1, 5, 6)
    torch.testing.assert_close(attention_map(condensed, p), attention_map(teacher, p))
    torch.testing.assert_close(loss([student], [condensed]), loss([student], [teacher]))
    loud = loss.condense(300 * teacher.half())  # whose square exceeds the largest half
    torch.testing.assert_close(loud, 300 * condensed, rtol=2e-3, atol=1e-2)


def test_half_precision_is_computed_in_float32():
    # 300^2 exceeds the largest half
    student, teacher = (300 * m.float() for m in (STUDENT, TEACHER))
    loss = attention_transfer(student.half(), teacher.half())
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(0.120554, abs=1e-5)


def test_module_sums_over_the_chosen_pairs():
    torch.manual_seed(0)
    students = [torch.randn(2, 3, side, side) for side in (8, 4, 2)]
    teachers = [torch.randn(2, 5, side, side) for side in (8, 4, 2)]
    module = MODELS.build(dict(type='AttentionTransferLoss'))
    each = [1000 * attention_transfer(s, t) for s, t in zip(students, teachers, strict=True)]
    torch.testing.assert_close(module(students, teachers), sum(each))
    module = AttentionTransferLoss(indices=[0, 2], loss_weight=1000.0)
    torch.testing.assert_close(module(students, teachers), each[0] + each[2])
    assert AttentionTransferLoss(loss_weight=1000.0)([STUDENT], [TEACHER]).item() == pytest.approx(
        120.554, abs=1e-3
    )


@pytest.mark.parametrize('form', ['mean', 'sum', 'norm'])
def test_module_has_its_power_and_form(form):
    loss = AttentionTransferLoss(p=1, form=form, loss_weight=2.0)([STUDENT], [TEACHER])
    torch.testing.assert_close(loss, 2 * attention_transfer(STUDENT, TEACHER, 1, form))


def test_usage_errors():
    with pytest.raises(UsageError, match='p=0.5, expected at least 1'):
        AttentionTransferLoss(p=0.5)
    with pytest.raises(UsageError, match="form='l2' is not known"):
        AttentionTransferLoss(form='l2')
    two, three = [(4, 8, 8)] * 2, [(4, 8, 8)] * 3
    AttentionTransferLoss().fit_maps(two, two)
    AttentionTransferLoss(indices=[1]).fit_maps(two, three)
    message = 'student returns 2 and the teacher 3 feature maps.*student.backbone.out_indices'
    with pytest.raises(UsageError, match=message):
        AttentionTransferLoss().fit_maps(two, three)
    for wrong in ([2], [-1], []):
        with pytest.raises(UsageError, match=r'indices=\(.*indices from 0 to 1'):
            AttentionTransferLoss(indices=wrong).fit_maps(two, three)


def test_maps_with_nothing_to_look_at():
    pooled, map_ = (8, 1, 1), (4, 2, 2)
    AttentionTransferLoss().fit_maps([map_, pooled], [map_, pooled])
    for pairs in (([pooled], [pooled]), ([map_], [pooled]), ([(4, 1, 5)], [(4, 5, 1)])):
        with pytest.raises(UsageError, match=r'always 0.*student\.backbone\.out_indices'):
            AttentionTransferLoss().fit_maps(*pairs)
    with pytest.raises(UsageError, match='always 0'):
        AttentionTransferLoss(indices=[1]).fit_maps([map_, pooled], [map_, pooled])
