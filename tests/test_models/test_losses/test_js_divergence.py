# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.losses import JSDivergence, js_divergence
from mmdfkd.utils import UsageError


def test_value_and_gradient_of_the_published_code(golden):
    arrays = golden('js')
    s, t = arrays['s_logit'].requires_grad_(), arrays['t_logit']
    value = js_divergence(s, t, temperature=3.0)
    torch.testing.assert_close(value.detach(), arrays['jsdiv_clamped_T3'])
    (gradient,) = torch.autograd.grad(-value, s)
    torch.testing.assert_close(gradient, arrays['d_neg_jsdiv_d_s_T3'])
    # At T = 1 the sum exceeds 1: it is cut, and pulls no more.
    assert arrays['jsdiv_clamped_T1'] > 1
    value = js_divergence(s, t, temperature=1.0)
    assert value.item() == 1
    assert not torch.autograd.grad(value, s)[0].any()


def test_value_and_gradient_of_pre_dfkd(golden):
    """Its published code takes the mean over classes too."""
    arrays = golden('pre_dfkd')
    s, t = arrays['js/s_logit'].requires_grad_(), arrays['js/t_logit']
    value = 1 - js_divergence(s, t, reduction='mean')
    torch.testing.assert_close(value.detach(), arrays['js/one_minus_js_T3_mean'])
    swapped = 1 - js_divergence(t, s, reduction='mean')
    torch.testing.assert_close(swapped.detach(), arrays['js/swapped_arguments'])
    (gradient,) = torch.autograd.grad(value, s)
    torch.testing.assert_close(gradient, arrays['js/d_s'])


def test_value_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4), m = (1/2, 1/2):
    # KL(m || p) = (ln(2/3) + ln 2) / 2 = ln(4/3) / 2, and the same for q
    logits = torch.tensor([[math.log(3.0), 0.0]])
    value = js_divergence(logits, logits.flip(1), temperature=1.0)
    assert value.item() == pytest.approx(math.log(4 / 3) / 2)


def test_the_definition(golden):
    arrays = golden('js')
    s, t = arrays['s_logit'], arrays['t_logit']
    for temperature in (1, 3):
        value = js_divergence(s, t, temperature, form='exact')
        torch.testing.assert_close(value, arrays[f'exact_js_T{temperature}'])
    # KL(p || m) = 3/4 ln(3/2) + 1/4 ln(1/2) for the predictions above
    logits = torch.tensor([[math.log(3.0), 0.0]])
    value = js_divergence(logits, logits.flip(1), temperature=1.0, form='exact')
    assert value.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))


def test_bounds_of_the_definition():
    """ln 2 where nothing is shared, 0 between equals; gradient even where p is nearly 0."""
    s, t = 200 * torch.eye(3), (200 * torch.eye(3)).roll(1, 0)
    assert js_divergence(s, t, 1.0, form='exact').item() == pytest.approx(math.log(2))
    assert js_divergence(s, s + 3, 1.0, form='exact').item() == pytest.approx(0, abs=1e-6)
    s, t = torch.randn(2, 4, 100, dtype=torch.float64)
    s.requires_grad_()
    assert (torch.autograd.grad(js_divergence(s, t, form='exact'), s)[0] != 0).all()
    assert not torch.autograd.grad(js_divergence(s, t), s)[0].all()  # clamps leave holes
    small = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: js_divergence(x, t[:2, :3], form='exact'), small)


def test_symmetric_and_zero_between_equals():
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(js_divergence(s, t), js_divergence(t, s))
    assert js_divergence(s, s + 3.0).item() == pytest.approx(0, abs=1e-6)
    assert js_divergence(100 * s, -100 * s).item() <= 1


def test_the_cut_is_of_the_mean_over_all_processes(monkeypatch):
    """Two ranks, one beyond the cut: their mean counts, not the mean of what is left of each."""
    s, t = 9 * torch.eye(3), 9 * torch.eye(3).roll(1, 0)
    alone = js_divergence(s, t, temperature=1.0)
    assert alone == 1
    monkeypatch.setitem(
        js_divergence.__globals__,
        'gather_batch',
        lambda each: torch.cat([each, torch.zeros_like(each)]),
    )
    # p = q rolled = (0.99, 0.01, 0.01), m = (0.5, 0.5, 0.01) to three digits
    each = 0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(0.5 / 0.01)
    assert js_divergence(s, t, temperature=1.0).item() == pytest.approx(each / 2, abs=1e-3)


def test_half_precision_is_computed_in_single():
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    value = js_divergence(s.half(), t.half())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, js_divergence(s, t), atol=1e-3, rtol=1e-2)


def test_module():
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    module = JSDivergence(temperature=2.0, loss_weight=3.0)
    torch.testing.assert_close(module(s, t), 3 * js_divergence(s, t, 2.0))
    module = JSDivergence(reduction='mean')
    torch.testing.assert_close(module(s, t), js_divergence(s, t) / 4)  # four classes
    with pytest.raises(UsageError, match='temperature=0'):
        JSDivergence(temperature=0)
    with pytest.raises(UsageError, match=r"reduction='sum'.*'batchmean', 'mean'"):
        JSDivergence(reduction='sum')
    torch.testing.assert_close(JSDivergence(form='exact')(s, t), js_divergence(s, t, form='exact'))
    with pytest.raises(UsageError, match="form='jeffreys'.*'legacy', 'exact'"):
        JSDivergence(form='jeffreys')
