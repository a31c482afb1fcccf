# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import KLDivergence, agreeing_kl_divergence, kl_divergence
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

TEACHER = torch.tensor([[2.0, 1, 0], [0, 0, 3]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 2, 0], [0, 1, 1]], dtype=torch.float64)


def test_hand_worked_value():
    # p_t = (3/4, 1/4), p_s = (1/2, 1/2): KL = .75 ln 1.5 + .25 ln .5 = .304099 - .173287 = .130812
    teacher = torch.tensor([[3.0, 1.0]]).log()
    loss = kl_divergence(torch.zeros(1, 2), teacher, temperature=1.0)
    torch.testing.assert_close(loss, torch.tensor(0.130812), atol=1e-6, rtol=0)


# T^2 * KL(batchmean) of the three-class example, evaluated independently in float64. At T = 1 the
# swapped direction KL(student || teacher) would give 0.615561.
@pytest.mark.parametrize(
    ('temperature', 'expected'),
    [(1.0, 0.480596), (2.0, 0.605959), (4.0, 0.611671), (1e4, 0.555588)],
)
def test_temperature(temperature, expected):
    loss = kl_divergence(STUDENT, TEACHER, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_reductions_and_scale():
    per_sample = kl_divergence(STUDENT, TEACHER, 1.0, reduction='none')
    assert per_sample.tolist() == pytest.approx([0.420512, 0.540679], abs=1e-6)
    total = kl_divergence(STUDENT, TEACHER, 2.0, reduction='sum', scale=False)
    assert total.item() == pytest.approx(0.302979, abs=1e-6)


def test_gradient_values():
    # T / N * (p_s - p_t), every row sums to 0
    student = STUDENT.clone().requires_grad_()
    kl_divergence(student, TEACHER, 4.0).backward()
    expected = [[-0.185466, 0.185466, 0.0], [0.074740, 0.233944, -0.308684]]
    for row, values in zip(student.grad.tolist(), expected, strict=True):
        assert row == pytest.approx(values, abs=1e-6)


def test_gradcheck():
    torch.manual_seed(0)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, t: kl_divergence(s, t, 3.0), (student, teacher))


def test_invariances():
    loss = kl_divergence(STUDENT, TEACHER)
    torch.testing.assert_close(kl_divergence(STUDENT + 7, TEACHER - 3), loss)
    torch.testing.assert_close(kl_divergence(STUDENT.flip(0), TEACHER.flip(0)), loss)
    torch.testing.assert_close(kl_divergence(STUDENT.flip(1), TEACHER.flip(1)), loss)
    torch.testing.assert_close(
        kl_divergence(TEACHER + 5, TEACHER), torch.zeros((), dtype=torch.float64)
    )


def test_extreme_logits_are_finite():
    # p_t = (1, 0), p_s = (0, 1): KL = 2 * 1e4 at T = 1, with probabilities that underflow to 0
    teacher = torch.tensor([[1e4, -1e4]])
    student = (-teacher).requires_grad_()
    loss = kl_divergence(student, teacher, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = STUDENT.to(dtype), TEACHER.to(dtype)  # these values are exact in both
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = kl_divergence(student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.611671, abs=1e-5)


def test_module_is_the_weighted_function():
    module = MODELS.build(dict(type='KLDivergence', temperature=2.0, loss_weight=0.5))
    assert isinstance(module, KLDivergence)
    torch.testing.assert_close(module(STUDENT, TEACHER), 0.5 * kl_divergence(STUDENT, TEACHER, 2.0))
    module = KLDivergence(temperature=2.0, reduction='sum', scale=False)
    torch.testing.assert_close(
        module(STUDENT, TEACHER), kl_divergence(STUDENT, TEACHER, 2.0, 'sum', scale=False)
    )


@pytest.mark.parametrize('wrong', [dict(temperature=0), dict(reduction='mean')])
def test_usage_errors(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        KLDivergence(**wrong)


# Where both agree -----------------------------------------------------------------------------


def test_agreeing_matches_published_code(golden):
    """Five of eight samples agree; the generator minimises the negative."""
    arrays = golden('cmi')
    student = arrays['mask/s_logit'].clone().requires_grad_()
    teacher = arrays['mask/t_logit'].clone().requires_grad_()
    loss = agreeing_kl_divergence(student, teacher)
    torch.testing.assert_close(-loss, arrays['mask/neg_masked_kl_mean'], atol=1e-9, rtol=0)
    (-loss).backward()
    torch.testing.assert_close(student.grad, arrays['mask/d_s'], atol=1e-9, rtol=0)
    agree = arrays['mask/agree_mask'].bool()
    assert agree.sum() == 5
    for logits in (student, teacher):
        assert (logits.grad[agree] != 0).any(1).all() and not logits.grad[~agree].any()


def test_agreeing_divides_by_the_whole_batch():
    # the first row agrees: KL .130812 as above; the second does not
    teacher = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
    student = torch.tensor([[0.1, 0.1 - 1e-6], [0.0, 1.0]])
    assert agreeing_kl_divergence(student, teacher).item() == pytest.approx(0.130812 / 2, abs=1e-5)
    assert agreeing_kl_divergence(student[1:], teacher[1:]) == 0
