# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import FeatureIntegrationLoss, feature_integration
from mmdfkd.utils import UsageError

KEYS = ('B_teacher_real', 'B_teacher_fake', 'B_dis_real', 'B_dis_fake')
CLOSE = dict(rtol=1e-5, atol=1e-5)


def test_published_code(golden):
    arrays = golden('hidfd')
    teacher_real, teacher_fake, own_real, own_fake = (arrays[key].clone() for key in KEYS)
    own_real.requires_grad_()
    own_fake.requires_grad_()
    parts = feature_integration(teacher_real, teacher_fake, own_real, own_fake)
    expected = arrays['B_trans_rr'] + arrays['B_trans_ff']
    torch.testing.assert_close(parts.transfer.detach(), expected, **CLOSE)
    expected = arrays['B_blend_rf'] + arrays['B_blend_fr']
    torch.testing.assert_close(parts.blend.detach(), expected, **CLOSE)
    sum(parts).backward()
    torch.testing.assert_close(sum(parts).detach(), arrays['B_total'], **CLOSE)
    torch.testing.assert_close(own_real.grad, arrays['B_grad_dis_real'], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(own_fake.grad, arrays['B_grad_dis_fake'], rtol=1e-4, atol=1e-6)


def test_by_hand():
    """Distances 5 and 0 between reals, 13 between fakes, means over a batch of two."""
    zeros = torch.zeros(2, 2)
    real = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    fake = torch.tensor([[5.0, 12.0], [5.0, 12.0]])
    parts = feature_integration(zeros, zeros, real, fake)
    assert parts.transfer.item() == parts.blend.item() == 2.5 + 13


def test_no_gradient_where_features_are_equal():
    own = torch.ones(2, 3, requires_grad=True)
    sum(feature_integration(torch.ones(2, 3), torch.ones(2, 3), own, own)).backward()
    assert torch.equal(own.grad, torch.zeros(2, 3))


def test_weights_and_detaching():
    values = torch.randn(4, 2, 3)
    plain = feature_integration(*values)
    own = values[2:].clone().requires_grad_()
    weighted = FeatureIntegrationLoss(0.5, 2.0)(values[0], values[1], *own)
    torch.testing.assert_close(weighted.transfer, 0.5 * plain.transfer)
    torch.testing.assert_close(weighted.blend, 2.0 * plain.blend)
    assert weighted.blend.requires_grad
    inert = FeatureIntegrationLoss(0.5, 2.0, detach=True)(values[0], values[1], *own)
    assert not inert.transfer.requires_grad and not inert.blend.requires_grad
    torch.testing.assert_close(inert.blend, weighted.blend.detach())
    assert not FeatureIntegrationLoss(0, 0).is_used
    assert FeatureIntegrationLoss(0.1, 0).is_used and FeatureIntegrationLoss(0, 0.1).is_used


def test_negative_weight():
    with pytest.raises(UsageError, match='model.feature_integration.blend_weight is -1'):
        FeatureIntegrationLoss(blend_weight=-1)
