# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import pytest
import torch
import torchvision.transforms.functional as TF

from mmdfkd.models.modules import crop_view, resized_crop_view

MEAN, STD = [125.0, 60.0, 10.0], [50.0, 60.0, 20.0]
BLACK = torch.tensor([-2.5, -1.0, -0.5]).view(3, 1, 1)  # -mean / std
NETWORK = SimpleNamespace(input_shape=(3, 12, 16), mean=MEAN, std=STD)


def draws(view, images):
    """What the view's transforms will draw next; the generator is put back."""
    state = torch.get_rng_state()
    drawn = [t.draw(len(images), *images.shape[2:], images.device) for t in view.transforms]
    torch.set_rng_state(state)
    return drawn


def channels_last(images):
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('layout', [torch.Tensor.contiguous, channels_last])
@pytest.mark.parametrize('needs_gradient', [True, False])
def test_crops_are_torchvisions_over_black(layout, needs_gradient):
    view = crop_view(NETWORK, padding=4, flip=True)
    images = layout(torch.randn(32, 3, 12, 16)).requires_grad_(needs_gradient)
    crops, flips = draws(view, images)
    found = view(images)
    assert found.shape == images.shape and found.requires_grad == needs_gradient
    for index, image in enumerate(images.detach()):
        padded = BLACK.expand(3, 20, 24).clone()
        padded[:, 4:-4, 4:-4] = image
        expected = TF.crop(padded, int(crops.top[index]), int(crops.left[index]), 12, 16)
        if flips.flip[index]:
            expected = TF.hflip(expected)
        torch.testing.assert_close(found[index].detach(), expected)
    assert len(set(zip(crops.top.tolist(), crops.left.tolist(), strict=True))) > 20
    assert 0 < flips.flip.sum() < 32


@pytest.mark.parametrize('layout', [torch.Tensor.contiguous, channels_last])
def test_windows_are_torchvisions(layout):
    view = resized_crop_view(NETWORK, scale=(0.25, 1.0), flip=True)
    images = layout(torch.randn(32, 3, 12, 16)).requires_grad_()
    crops, flips = draws(view, images)
    found = view(images)
    for index, image in enumerate(images.detach()):
        window = [int(values[index]) for values in crops]
        expected = TF.resized_crop(image, *window, size=[12, 16])
        if flips.flip[index]:
            expected = TF.hflip(expected)
        torch.testing.assert_close(found[index].detach(), expected, atol=1e-5, rtol=1e-5)
    area = crops.height * crops.width / (12 * 16)
    assert 0.2 < area.min() < 0.4 and 0.8 < area.max() <= 1


@pytest.mark.parametrize(
    'make', [lambda n: crop_view(n, 2, True), lambda n: resized_crop_view(n, (0.25, 1), True)]
)
def test_gradient(make):
    network = SimpleNamespace(input_shape=(2, 4, 4), mean=[1.0, 2.0], std=[1.0, 1.0])
    view = make(network).double()
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def fixed(images):
        torch.manual_seed(1)
        return view(images)

    assert torch.autograd.gradcheck(fixed, (images,))


def test_gradient_of_a_crop_is_zero_where_it_does_not_look():
    view = crop_view(NETWORK, padding=4, flip=True)
    images = torch.randn(16, 3, 12, 16, requires_grad=True)
    view(images).sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}
    assert (images.grad.sum((1, 2, 3)) > 3 * 8 * 12 - 1).all()  # at least what no shift removes


def test_without_flips_and_without_padding_nothing_happens():
    view = crop_view(NETWORK, padding=0, flip=False)
    images = torch.randn(4, 3, 12, 16)
    torch.testing.assert_close(view(images), images)
    assert len(view.transforms) == 1 and not view.state_dict()


def test_windows_have_the_area_that_was_asked_for():
    view = resized_crop_view(NETWORK, scale=(0.7, 0.8), flip=False)
    ((_, _, height, width),) = draws(view, torch.randn(64, 3, 12, 16))
    area = height * width / (12 * 16)
    assert 0.6 < area.min() and area.max() < 0.9  # sides are whole pixels
