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


def test_value_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4), m = (1/2, 1/2):
    # KL(m || p) = (ln(2/3) + ln 2) / 2 = ln(4/3) / 2, and the same for q
    logits = torch.tensor([[math.log(3.0), 0.0]])
    value = js_divergence(logits, logits.flip(1), temperature=1.0)
    assert value.item() == pytest.approx(math.log(4 / 3) / 2)


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
    with pytest.raises(UsageError, match='temperature=0'):
        JSDivergence(temperature=0)
