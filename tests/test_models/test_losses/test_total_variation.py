# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.losses import TotalVariationLoss, total_variation
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

FORMS = ('l1', 'l2')


@pytest.mark.parametrize('form', FORMS)
def test_published_values_and_gradients(golden, form):
    arrays = golden('deepinversion')
    images = arrays['prior/x'].requires_grad_()
    value = total_variation(images, form)
    (gradient,) = torch.autograd.grad(value, images)
    close = dict(atol=1e-9, rtol=0)
    torch.testing.assert_close(value.detach(), arrays[f'prior/tv_{form}'], **close)
    torch.testing.assert_close(gradient, arrays[f'prior/d_tv_{form}'], **close)


def test_values_by_hand():
    """One white pixel in the corner of a black 2 x 2: it differs from all three others."""
    images = torch.zeros(1, 1, 2, 2)
    images[..., 0, 0] = 1
    # rows (1, 0), columns (1, 0), one diagonal 1, the other 0
    assert total_variation(images, 'l2').item() == pytest.approx(3)
    assert total_variation(images, 'l1').item() == pytest.approx(1 / 2 + 1 / 2 + 1)


@pytest.mark.parametrize('form', FORMS)
def test_flat_images_are_zero_with_zero_gradient(form):
    images = torch.randn(3, 2, 1, 1).expand(3, 2, 5, 4).clone().requires_grad_()
    value = total_variation(images, form)
    value.backward()
    assert value.item() == 0 and not images.grad.any()


def test_how_they_grow_with_the_batch():
    images = torch.randn(2, 3, 6, 7)
    twice = torch.cat([images, images])
    ratio = total_variation(twice, 'l2') / total_variation(images, 'l2')
    assert ratio.item() == pytest.approx(math.sqrt(2))
    torch.testing.assert_close(total_variation(twice, 'l1'), total_variation(images, 'l1'))


@pytest.mark.parametrize('form', FORMS)
def test_invariances(form):
    """Mirroring, turning and a constant do not matter; a factor comes out."""
    images = torch.randn(2, 3, 6, 6)
    value = total_variation(images, form)
    for other in (images.flip(3), images.flip(2), images.mT, images + 5, images[[1, 0]]):
        torch.testing.assert_close(total_variation(other, form), value)
    torch.testing.assert_close(total_variation(-2 * images, form), 2 * value)


@pytest.mark.parametrize('form', FORMS)
def test_gradcheck(form):
    images = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: total_variation(x, form), images)


def test_module():
    images = torch.randn(2, 3, 6, 6)
    module = MODELS.build(dict(type='TotalVariationLoss', form='l1', loss_weight=0.5))
    torch.testing.assert_close(module(images), 0.5 * total_variation(images, 'l1'))
    torch.testing.assert_close(TotalVariationLoss()(images), total_variation(images))
    with pytest.raises(UsageError, match="form='l3'.*'l2', 'l1'"):
        TotalVariationLoss(form='l3')
