# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import hinge_loss, pass_for_real_loss, real_or_fake_class_loss

CLOSE = dict(rtol=1e-5, atol=1e-5)


def test_hinge_of_published_code(golden):
    arrays = golden('hidfd')
    torch.testing.assert_close(
        hinge_loss(arrays['A_dis_real'], True), arrays['A_hinge_dis_real'], **CLOSE
    )
    torch.testing.assert_close(
        hinge_loss(arrays['A_dis_fake'], False), arrays['A_hinge_dis_fake'], **CLOSE
    )


def test_hinge_by_hand():
    """Real: 1 - 2 is cut off, 1 - 0.5 and 1 + 1 stay; fake: 1 + 2, 1 + 0.5 and nothing."""
    score = torch.tensor([2.0, 0.5, -1.0])
    assert hinge_loss(score, True).item() == pytest.approx(2.5 / 3)
    assert hinge_loss(score, False).item() == pytest.approx(4.5 / 3)


def test_discriminators_class_loss_of_published_code(golden):
    arrays = golden('hidfd')
    logits = [arrays[f'A_adc_{kind}'].clone().requires_grad_() for kind in ('real', 'fake')]
    losses = [
        real_or_fake_class_loss(logits[0], arrays['A_y_real'], True),
        real_or_fake_class_loss(logits[1], arrays['A_y_fake'], False),
    ]
    for kind, loss in zip(('real', 'fake'), losses, strict=True):
        torch.testing.assert_close(loss.detach(), arrays[f'A_adc_D_{kind}_ce'], **CLOSE)
    sum(losses).backward()
    for kind, value in zip(('real', 'fake'), logits, strict=True):
        torch.testing.assert_close(value.grad, arrays[f'A_adc_D_grad_{kind}_ce'], **CLOSE)


def test_generators_class_loss_of_published_code(golden):
    """There a difference of two cross-entropies, whose normalisation cancels."""
    arrays = golden('hidfd')
    logits = arrays['A_adc_fake'].clone().requires_grad_()
    loss = pass_for_real_loss(logits, arrays['A_y_fake'])
    torch.testing.assert_close(loss.detach(), arrays['A_adc_G_ce'], **CLOSE)
    loss.backward()
    torch.testing.assert_close(logits.grad, arrays['A_adc_G_grad_ce'], **CLOSE)
