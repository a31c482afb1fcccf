# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.losses import ImageNormLoss, image_norm
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

FORMS = ('batch', 'image')


def test_published_values(golden):
    arrays = golden('deepinversion')
    images, close = arrays['prior/x'], dict(atol=1e-9, rtol=0)
    torch.testing.assert_close(image_norm(images), arrays['prior/l2_whole_batch'], **close)
    expected = arrays['prior/l2_per_image_mean']
    torch.testing.assert_close(image_norm(images, 'image'), expected, **close)


def test_values_by_hand():
    """Pixels 3, 4 of one image and 12, 0 of another: norms 5 and 12, of both together 13."""
    images = torch.tensor([[3.0, 4.0], [12.0, 0.0]]).view(2, 1, 1, 2)
    assert image_norm(images).item() == pytest.approx(13)
    assert image_norm(images, 'image').item() == pytest.approx(8.5)


@pytest.mark.parametrize('form', FORMS)
def test_zero_with_zero_gradient(form):
    images = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = image_norm(images, form)
    value.backward()
    assert value.item() == 0 and not images.grad.any()


@pytest.mark.parametrize('form', FORMS)
def test_gradcheck(form):
    images = torch.randn(2, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: image_norm(x, form), images)


def test_module():
    images = torch.randn(2, 3, 6, 6)
    module = MODELS.build(dict(type='ImageNormLoss', form='image', loss_weight=0.5))
    torch.testing.assert_close(module(images), 0.5 * image_norm(images, 'image'))
    torch.testing.assert_close(ImageNormLoss()(images), image_norm(images))
    with pytest.raises(UsageError, match="form='pixel'.*'batch', 'image'"):
        ImageNormLoss(form='pixel')
