# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch
import torch.nn.functional as F

from mmdfkd.models.losses import InstanceContrastLoss, info_nce
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError


def unit(*shape, **options):
    return F.normalize(torch.randn(*shape, **options), dim=1)


@pytest.mark.parametrize(('number', 'step'), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_published_rows(golden, number, step):
    """From its logits: unit keys turn them into anchors."""
    arrays = golden('cmi')
    logits = arrays[f'step/round{number}/it{step}_cr_logits']
    anchors, keys = 0.2 * logits, torch.eye(len(logits), dtype=logits.dtype)
    expected = arrays[f'step/round{number}/it{step}_cr_loss_vector']
    torch.testing.assert_close(info_nce(anchors, keys, 0.2), expected, atol=1e-9, rtol=0)
    loss = InstanceContrastLoss(temperature=0.2, loss_weight=1.0)(anchors, keys, 6)
    expected = arrays[f'step/round{number}/it{step}_loss_cr']
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=0)


def test_hand_worked_value():
    # orthogonal vectors, tau 1/2: logits 2 for the positive, 0 for the other: -ln(e^2 / (e^2 + 1))
    losses = info_nce(torch.eye(2), torch.eye(2), 0.5)
    assert losses.tolist() == pytest.approx([0.126928] * 2, abs=1e-6)
    # the row of the bank has the key of the first: e^0 / (1 + 1 + e^2) and its like
    anchors = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    keys = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    e = math.exp(2)
    first, second = -math.log(e / (2 * e + 1)), -math.log(e / (e + 2))
    third = -math.log(1 / (e + 2))
    loss = InstanceContrastLoss(temperature=0.5, loss_weight=0.5)(anchors, keys, 2)
    assert loss.item() == pytest.approx(0.5 * ((first + second) / 2 + third))


def test_extremes():
    same = unit(1, 4).expand(6, 4)
    assert info_nce(same, same, 0.1).tolist() == pytest.approx([math.log(6)] * 6)
    assert info_nce(unit(1, 4), unit(1, 4), 0.1).item() == 0


def test_order_of_rows_plays_no_part():
    anchors, keys, order = unit(6, 4), unit(6, 4), torch.randperm(6)
    losses = info_nce(anchors, keys, 0.2)
    torch.testing.assert_close(info_nce(anchors[order], keys[order], 0.2), losses[order])


def test_keys_get_no_gradient():
    anchors, keys = (unit(4, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a: info_nce(a, keys, 0.2), (anchors,))
    info_nce(anchors, keys, 0.2).sum().backward()
    assert keys.grad is None


def test_rows_of_the_bank_do_not_dilute_the_batch():
    """As many as there are: the gradient of a batch row is that of its own mean."""
    anchors = unit(4, 3).requires_grad_()
    keys = unit(4, 3)
    far = F.normalize(torch.randn(100, 3), dim=1)
    loss = MODELS.build(dict(type='InstanceContrastLoss', temperature=10.0, loss_weight=1.0))
    loss(torch.cat([anchors, far]), torch.cat([keys, far]), 4).backward()
    # about 1/4 (mean key - own key) / tau for each row
    assert anchors.grad.norm(dim=1).min() > 0.5 * 0.25 * 0.1


def test_half_precision():
    anchors, keys = unit(4, 3), unit(4, 3)
    with torch.autocast('cpu', torch.bfloat16):
        losses = info_nce(anchors, keys, 0.1)
    assert losses.dtype == torch.float32
    expected = F.cross_entropy(anchors @ keys.T / 0.1, torch.arange(4), reduction='none')
    torch.testing.assert_close(losses, expected)  # no product is rounded
    rounded = [vectors.bfloat16() for vectors in (anchors, keys)]
    exact = info_nce(*(vectors.float() for vectors in rounded), 0.1)
    assert torch.equal(info_nce(*rounded, 0.1), exact)


def test_usage_errors():
    with pytest.raises(UsageError, match='temperature=0, expected a number > 0'):
        InstanceContrastLoss(temperature=0)
