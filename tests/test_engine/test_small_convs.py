# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdfkd.engine import small_convs
from mmdfkd.engine.small_convs import SmallConvs, convolve_and_pool
from mmdfkd.models.backbones import LeNet5
from mmdfkd.models.modules import SimKDAdapter

# Maps (B, C, H, W), C' and k: odd and even sizes of the result, one channel and several.
SHAPES = [((2, 1, 12, 15), 3, 5), ((3, 2, 9, 9), 4, 3), ((1, 3, 8, 10), 2, 4), ((2, 1, 6, 6), 1, 5)]


def arguments(shape, out, size, draw=torch.randn):
    tensors = draw(shape), draw((out, shape[1], size, size)), draw((out,))
    return [tensor.double().requires_grad_() for tensor in tensors]


def whole_numbers(shape):
    return torch.randint(-1, 2, shape)


@pytest.mark.parametrize('shape, out, size', SHAPES)
@pytest.mark.parametrize('draw', [torch.randn, whole_numbers])
def test_equals_a_convolution_and_pooling(shape, out, size, draw):
    """With whole numbers many of the four are equal: the gradient goes where pooling sends it."""
    tensors = arguments(shape, out, size, draw)
    maps = convolve_and_pool(*tensors)
    expected = F.max_pool2d(F.conv2d(*tensors), 2)
    torch.testing.assert_close(maps, expected, rtol=1e-13, atol=1e-13)
    grad = draw(maps.shape).double()
    found, wanted = (torch.autograd.grad(y, tensors, grad) for y in (maps, expected))
    for ours, torchs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('shape, out, size', SHAPES)
def test_gradients(shape, out, size):
    assert torch.autograd.gradcheck(convolve_and_pool, arguments(shape, out, size))


def test_a_second_derivative_is_refused():
    tensors = arguments(*SHAPES[0])
    loss = convolve_and_pool(*tensors).square().sum()
    first = torch.autograd.grad(loss, tensors, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        first[1].sum().backward()


@pytest.fixture
def student():
    """All of a student that has small convolutions: LeNet5-half and the adapter to LeNet5."""
    adapter = SimKDAdapter(in_channels=60, out_channels=120, in_size=1, out_size=1)
    return nn.ModuleDict(dict(backbone=LeNet5(width=0.5, out_indices=(0, 1, 2)), neck=adapter))


def maps_of(student, images):
    maps = student['backbone'](images)
    return [*maps, student['neck'](maps[-1])]


def gradients(student, images):
    maps = maps_of(student, images)
    torch.manual_seed(5)
    loss = sum((y.float() * torch.randn(y.shape)).sum() for y in maps)
    return torch.autograd.grad(loss, [images, *student.parameters()])


def test_same_maps_and_gradients(student):
    images, names = torch.randn(8, 1, 32, 32, requires_grad=True), list(student.state_dict())
    expected = maps_of(student, images), gradients(student, images)
    with SmallConvs(student).active():
        found = maps_of(student, images), gradients(student, images)
        assert list(student.state_dict()) == names
    for ours, torchs in zip(sum(map(list, found), []), sum(map(list, expected), []), strict=True):
        scale = torchs.abs().max()
        assert (ours - torchs).abs().max() <= 1e-5 * scale and ours.shape == torchs.shape
    assert any(not torch.equal(*both) for both in zip(found[1], expected[1], strict=True))


def test_only_inside(student):
    small = SmallConvs(student)
    convs = [layer for layer in student.modules() if isinstance(layer, nn.Conv2d)]
    pools = [layer for layer in student.modules() if isinstance(layer, nn.MaxPool2d)]
    assert set(small.forwards) == {*convs, *pools} and len(convs) == 6 and len(pools) == 2
    with pytest.raises(KeyError), small.active():
        assert all('forward' in vars(layer) for layer in small.forwards)
        raise KeyError
    assert not any('forward' in vars(layer) for layer in student.modules())


def test_wide_layers_stay_with_the_library():
    """Of a whole LeNet5, from 6 channels to 16: too many zeros."""
    backbone = LeNet5()
    forwards = SmallConvs(backbone).forwards
    assert backbone.layers[1] in forwards and backbone.layers[4] not in forwards


def test_without_a_gradient_float32_is_the_librarys(student):
    images = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        expected = student['backbone'](images)[:2]
        with SmallConvs(student).active():
            found = student['backbone'](images)[:2]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize('learns', [True, False])
def test_bfloat16(student, learns):
    """Pooled maps in bfloat16, as exact as the library's; products over one pixel in float32."""
    images = torch.randn(16, 1, 32, 32)
    with torch.no_grad():
        exact = maps_of(student, images)
    with torch.set_grad_enabled(learns), torch.autocast('cpu', torch.bfloat16):
        plain = maps_of(student, images)
        with SmallConvs(student).active():
            maps = maps_of(student, images)
    assert [y.dtype for y in maps] == [*[torch.bfloat16] * 2, *[torch.float32] * 2]
    for ours, librarys, true in zip(maps, plain, exact, strict=True):
        errors = [(y.float() - true).square().mean().sqrt() for y in (ours, librarys)]
        assert errors[0] <= 1.1 * errors[1] and 0 < errors[1] < 0.05 * true.abs().max()


@pytest.mark.parametrize('index', [0, 1])
def test_a_listener_sees_the_true_map(student, index):
    images, heard = torch.randn(4, 1, 32, 32), []
    layer = student['backbone'].layers[index]
    handle = layer.register_forward_hook(lambda _, inputs, output: heard.append(output))
    expected = student['backbone'](images)[0]
    with SmallConvs(student).active():
        found = student['backbone'](images)[0]
    handle.remove()
    assert torch.equal(*heard) and torch.equal(found, expected)
    assert heard[0].shape[2] == (28, 14)[index]


def test_a_copy_has_weights_of_its_own(student):
    """As FastDFKD's of its generator, in the middle of a step."""
    images = torch.randn(4, 1, 32, 32)
    with SmallConvs(student).active():
        maps, twin = maps_of(student, images), copy.deepcopy(student)
        for parameter in student.parameters():
            parameter.data.zero_()
        assert all(map(torch.equal, maps_of(twin, images), maps))


@pytest.mark.parametrize(
    'conv, shape, covers',
    [
        (nn.Conv2d(3, 4, 2), (2, 3, 2, 2), True),
        (nn.Conv2d(3, 4, (1, 3), padding=(0, 1), bias=False), (2, 3, 1, 1), True),
        (nn.Conv2d(3, 4, 2), (2, 3, 3, 3), False),
        (nn.Conv2d(4, 4, 1, groups=2), (2, 4, 1, 1), False),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode='reflect'), (2, 3, 2, 2), False),
        (nn.Conv2d(3, 4, 3, padding='same'), (2, 3, 1, 1), False),
        (nn.Conv2d(3, 4, 2, dilation=2, padding=1), (2, 3, 1, 1), False),
    ],
)
def test_a_kernel_that_covers_its_map(conv, shape, covers, monkeypatch):
    maps, products = torch.randn(shape), []
    linear = F.linear
    expected = conv(maps)
    monkeypatch.setattr(F, 'linear', lambda *args: products.append(1) or linear(*args))
    with SmallConvs(conv).active():
        found = conv(maps)
    torch.testing.assert_close(found, expected)
    assert bool(products) == covers


def test_a_frozen_pair_passes_gradient_on_and_computes_none(student, monkeypatch):
    images = torch.randn(3, 1, 32, 32, requires_grad=True)
    maps_of(student.requires_grad_(False), images)[0].square().sum().backward()
    expected, images.grad = images.grad, None
    asked, bands = [], small_convs._bands
    monkeypatch.setattr(small_convs, '_bands', lambda *args: asked.append(1) or bands(*args))
    with SmallConvs(student).active():
        maps_of(student, images)[0].square().sum().backward()
    torch.testing.assert_close(images.grad, expected)
    assert len(asked) == 2  # for the matrices of two layers, none for their gradients
