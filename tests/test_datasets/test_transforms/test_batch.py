# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The batch transforms equal torchvision's, called image by image with the same parameters."""

import math

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from mmdfkd.datasets.transforms import (
    BatchRandomCrop,
    BatchRandomFlip,
    BatchRandomResizedCrop,
    CropParams,
    FlipParams,
    ResizedCropParams,
)
from mmdfkd.registry import TRANSFORMS
from mmdfkd.utils import UsageError

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


class OneByOne(BatchRandomResizedCrop):
    dense_pixels = 0


class ByProducts(BatchRandomResizedCrop):
    dense_pixels = 10**9


RESIZED_CROPS = [OneByOne, ByProducts]

TRANSFORMS_UNDER_TEST = [
    BatchRandomCrop(size=16),
    BatchRandomCrop(size=20, padding=3),
    BatchRandomCrop(size=(22, 17), padding=2, pad_mode='reflect'),
    BatchRandomFlip(),
    ByProducts(size=(16, 24)),
    OneByOne(size=(16, 24)),
]


def make_images(batch=12, channels=3, dtype=torch.uint8, layout='contiguous'):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, channels, 20, 28), generator=generator)
    return images.to(dtype).contiguous(memory_format=FORMATS[layout])


def draw(transform, images):
    return transform.draw(len(images), *images.shape[-2:], images.device)


def per_image(function, images, params):
    rows = zip(*(p.tolist() for p in params), strict=True)
    return torch.stack([function(image, *row) for image, row in zip(images, rows, strict=True)])


# Equality with torchvision


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('pad_mode', ['constant', 'reflect', 'edge'])
def test_crop_equals_torchvision(pad_mode, channels, dtype, layout):
    images = make_images(channels=channels, dtype=dtype, layout=layout)
    transform = BatchRandomCrop(size=(18, 30), padding=3, pad_mode=pad_mode)
    params = draw(transform, images)

    def reference(image, top, left):
        return F.crop(F.pad(image, [3] * 4, padding_mode=pad_mode), top, left, 18, 30)

    expected = per_image(reference, images, params)
    torch.testing.assert_close(transform.apply(images, params), expected, rtol=0, atol=0)


def test_crop_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    crop = BatchRandomCrop(size=2, padding=1)
    # Padded: 0 0 0 0 / 0 1 2 0 / 0 3 4 0 / 0 0 0 0; the window at row 0, column 2 is 0 0 / 2 0.
    window = crop.apply(image, CropParams(top=torch.tensor([0]), left=torch.tensor([2])))
    assert window.tolist() == [[[[0, 0], [2, 0]]]]


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('channels', [1, 3])
def test_flip_mirrors_the_drawn_samples_only(channels, dtype, layout):
    images = make_images(channels=channels, dtype=dtype, layout=layout)
    flip = torch.arange(len(images)) % 3 == 0
    flipped = BatchRandomFlip().apply(images, FlipParams(flip))
    torch.testing.assert_close(flipped[flip], F.horizontal_flip(images[flip]), rtol=0, atol=0)
    torch.testing.assert_close(flipped[~flip], images[~flip], rtol=0, atol=0)


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('size', [(32, 40), (20, 28), (7, 9), (30, 6)])
@pytest.mark.parametrize('resized_crop', RESIZED_CROPS)
def test_resized_crop_equals_torchvision(resized_crop, size, antialias, channels, layout):
    images = make_images(40, channels, torch.float32, layout) / 255
    transform = resized_crop(size, antialias=antialias)
    params = draw(transform, images)

    def reference(image, *window):
        return F.resized_crop(image, *window, size=size, antialias=antialias)

    expected = per_image(reference, images, params)
    torch.testing.assert_close(transform.apply(images, params), expected, rtol=0, atol=1e-5)


def test_resized_crop_of_single_pixels_and_of_everything():
    images = make_images(2, dtype=torch.float32)
    params = ResizedCropParams(*torch.tensor([[19, 0], [27, 0], [1, 20], [1, 28]]))
    pixel, whole = ByProducts((20, 28)).apply(images, params)
    torch.testing.assert_close(pixel, images[0, :, 19:, 27:].expand(3, 20, 28))
    torch.testing.assert_close(whole, images[1], rtol=0, atol=0)


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('size', [(32, 40), (20, 28), (13, 31), (7, 9)])
@pytest.mark.parametrize('resized_crop', RESIZED_CROPS)
def test_resized_crop_of_uint8_is_that_of_torchvision_to_the_bit(
    resized_crop, size, antialias, channels, layout
):
    images = make_images(40, channels, layout=layout)
    transform = resized_crop(size, antialias=antialias)
    params = draw(transform, images)

    def reference(image, *window):
        return F.resized_crop(image, *window, size=size, antialias=antialias)

    distance = transform.apply(images, params).int() - per_image(reference, images, params).int()
    # Without these instructions torch does not round between directions, nor did older releases.
    is_old = torch.__version__.startswith('2.6.')
    to_the_bit = 'AVX' in torch.backends.cpu.get_cpu_capability() and not is_old
    assert distance.abs().max() <= (0 if to_the_bit else 1)


def test_resized_crop_of_uint8_far_smaller_is_at_most_one_level_apart():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 160, 200), dtype=torch.uint8)
    transform = ByProducts(9, scale=(0.5, 1.0))
    params = draw(transform, images)

    def reference(image, *window):
        return F.resized_crop(image, *window, size=(9, 9))

    expected = per_image(reference, images, params)
    assert (transform.apply(images, params).int() - expected.int()).abs().max() <= 1


def test_matrices_of_a_table_are_those_of_the_windows(monkeypatch):
    images = make_images(200)
    transform = ByProducts((13, 31))
    params = draw(transform, images)
    by_table = transform.apply(images, params)

    def of_windows(self, start, length, size, out_size, dtype, whole):  # as on a GPU
        ascending, order = length.sort()
        flat = self._in_rows(ascending, size, out_size, dtype, whole)
        matrices = flat[size:].view(-1, out_size, size)[order.argsort()]
        moved = [matrix.roll(int(first), 1) for matrix, first in zip(matrices, start, strict=True)]
        return torch.stack(moved)

    monkeypatch.setattr(ByProducts, '_matrices', of_windows)
    assert torch.equal(transform.apply(images, params), by_table)


def test_windows_of_floats_are_moved_to_their_places():
    transform = ByProducts((13, 31))
    start, length = torch.tensor([0, 7, 19, 3]), torch.tensor([20, 5, 1, 11])
    matrices = transform._matrices(start, length, 20, 13, torch.float32, whole=False)
    alone = transform._weights(length, 20, 13, torch.float32)
    for matrix, weights, first in zip(matrices, alone, start.tolist(), strict=True):
        assert torch.equal(matrix, weights.roll(first, 1))


def test_resized_crop_keeps_white_and_black():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 40, 40)
    for size in (9, 13, 32, 40, 64):
        resized = ByProducts(size)(images)
        assert (resized == images[:, :, :1, :1]).all()


def test_large_images_are_resized_one_by_one_and_small_ones_by_products(monkeypatch):
    used = []
    for name in ('_one_by_one', '_by_products'):
        way = lambda self, images, params, name=name: used.append(name)  # noqa: E731
        monkeypatch.setattr(BatchRandomResizedCrop, name, way)
    for side in (32, 64):
        BatchRandomResizedCrop(8)(torch.zeros(2, 3, side, side, dtype=torch.uint8))
    assert used == ['_by_products', '_one_by_one']


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.int16, torch.int64])
def test_large_images_of_any_type_are_resized(dtype):
    images = torch.full((2, 3, 64, 64), 7).to(dtype)
    assert torch.equal(BatchRandomResizedCrop(32)(images), images[:, :, :32, :32])


# Distributions


def within_error(ours, theirs, sigmas=5.0):
    """Whether the means of two samples agree within their sampling error."""
    error = math.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    return abs(ours.mean() - theirs.mean()) < sigmas * error


def test_resized_crop_windows_are_distributed_like_torchvision():
    torch.manual_seed(0)
    height, width, scale, ratio = 24, 56, (0.3, 1.0), (0.5, 2.5)  # 63 % of the tries do not fit
    ours = BatchRandomResizedCrop(8, scale, ratio).draw(100_000, height, width)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(4000)]
    theirs = torch.tensor(theirs, dtype=torch.float32).T

    def statistics(top, left, high, wide):
        area, log_ratio = high * wide / (height * width), (wide / high).log()
        return [area, area**2, log_ratio, log_ratio**2, top, top**2, left, left**2, high * left]

    pairs = zip(statistics(*(p.float() for p in ours)), statistics(*theirs), strict=True)
    assert all(within_error(mine, other) for mine, other in pairs)


def test_resized_crop_windows_lie_inside_the_image():
    torch.manual_seed(0)
    top, left, height, width = BatchRandomResizedCrop(8).draw(20_000, 9, 16)
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height).max() == 9 and (left + width).max() == 16


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [
        # Too wide for an area of 1 at a ratio <= 4/3: full height, width round(10 * 4/3) = 13,
        # left (100 - 13) // 2 = 43.
        ((10, 100), (0, 43, 10, 13)),
        # Too tall: full width, height round(10 / (3/4)) = 13, top (100 - 13) // 2 = 43.
        ((100, 10), (43, 0, 13, 10)),
    ],
)
def test_resized_crop_falls_back_to_the_centre(shape, expected):
    params = BatchRandomResizedCrop(8, scale=(1.0, 1.0)).draw(5, *shape)
    assert all(row == expected for row in zip(*(p.tolist() for p in params), strict=True))
    image = torch.empty(3, *shape)
    assert RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3]) == expected


def test_crop_corners_are_uniform():
    torch.manual_seed(0)
    top, left = BatchRandomCrop(size=32, padding=1).draw(90_000, 32, 32)
    counts = torch.bincount(3 * top + left, minlength=9).float()
    # 9 places, 10,000 expected in each, standard deviation sqrt(90000 * 1/9 * 8/9) = 94.
    assert len(counts) == 9 and (counts - 10_000).abs().max() < 5 * 94


@pytest.mark.parametrize('prob', [0.0, 0.3, 1.0])
def test_flip_probability(prob):
    torch.manual_seed(0)
    flip = BatchRandomFlip(prob).draw(10_000, 1, 1).flip
    assert abs(flip.float().mean() - prob) <= 5 * math.sqrt(prob * (1 - prob) / 10_000)


# What holds for every transform


@pytest.fixture(params=TRANSFORMS_UNDER_TEST, ids=lambda t: type(t).__name__)
def transform(request):
    return request.param


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_keeps_dtype_layout_and_input(transform, dtype, layout):
    images = make_images(dtype=dtype, layout=layout)
    before = images.clone()
    output = transform(images)
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=FORMATS[layout])
    assert torch.equal(images, before)


def test_same_seed_same_output(transform):
    images = make_images()
    torch.manual_seed(1)
    first, second = transform(images), transform(images)
    torch.manual_seed(1)
    assert torch.equal(transform(images), first)
    assert not torch.equal(first, second)


def test_samples_of_a_batch_differ(transform):
    torch.manual_seed(0)
    copies = transform(make_images(1).expand(64, -1, -1, -1))
    assert len(copies.unique(dim=0)) > 1


def test_permuted_batch_with_permuted_parameters(transform):
    images = make_images(500)
    torch.manual_seed(0)
    params, order = draw(transform, images), torch.randperm(500)
    permuted = transform.apply(images[order], type(params)(*(p[order] for p in params)))
    assert torch.equal(permuted, transform.apply(images, params)[order])


@pytest.mark.parametrize('layout', FORMATS)
def test_gradient_reaches_float_images(transform, layout):
    images = make_images(4, dtype=torch.float32, layout=layout)
    params = draw(transform, images)
    expected = transform.apply(images, params)
    weight = torch.rand_like(expected)
    images.requires_grad_()
    output = transform.apply(images, params)
    (output * weight).sum().backward()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert output.is_contiguous(memory_format=FORMATS[layout])
    # All transforms are linear: <weight, T(x)> = <gradient, x>.
    left = (expected.double() * weight).sum()
    right = (images.grad.double() * images.detach()).sum()
    torch.testing.assert_close(left, right, rtol=1e-5, atol=0)


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('moving', [BatchRandomCrop(size=20, padding=3), BatchRandomFlip()])
def test_bfloat16_which_numpy_lacks_is_moved_alike(moving, channels, layout):
    images = make_images(channels=channels, layout=layout)
    params = draw(moving, images)
    output = moving.apply(images.bfloat16(), params)
    assert torch.equal(output, moving.apply(images, params).bfloat16())
    assert output.is_contiguous(memory_format=FORMATS[layout])


def test_autocast_does_not_coarsen_pixels(transform):
    images = make_images(dtype=torch.float32)
    params = draw(transform, images)
    expected = transform.apply(images, params)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = transform.apply(images, params)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


@pytest.mark.parametrize('layout', FORMATS)
@pytest.mark.parametrize(
    'cut',
    [
        lambda x: x[5:],
        lambda x: x[1::2, :, 1:, 2:],
        lambda x: x[:, :, 1:, 2:],
        lambda x: x[:, :1],
        lambda x: x[:, :, :20, :20].transpose(2, 3),
    ],
    ids=['rows', 'strided', 'window', 'channel', 'transposed'],
)
def test_works_on_views_with_an_offset(transform, cut, layout):
    view = cut(make_images(24, layout=layout))
    params = draw(transform, view)
    assert torch.equal(transform.apply(view, params), transform.apply(view.clone(), params))


# Configs and errors


def test_builds_from_a_config():
    crop = TRANSFORMS.build(dict(type='BatchRandomCrop', size=32, padding=4, pad_mode='edge'))
    assert (crop.size, crop.padding, crop.pad_mode) == ((32, 32), 4, 'edge')


@pytest.mark.parametrize(
    ('transform_type', 'arguments', 'named'),
    [
        (BatchRandomCrop, dict(size=0), 'size=0'),
        (BatchRandomCrop, dict(size=(1, 2, 3)), r'size=\(1, 2, 3\)'),
        (BatchRandomCrop, dict(size=32, padding=-1), 'padding=-1'),
        (BatchRandomCrop, dict(size=32, pad_mode='wrap'), "'wrap'.*'reflect'"),
        (BatchRandomFlip, dict(prob=1.5), 'prob=1.5'),
        (BatchRandomResizedCrop, dict(size=8, scale=(1.0, 0.1)), 'scale'),
        (BatchRandomResizedCrop, dict(size=8, ratio=(0.0, 1.0)), 'ratio'),
    ],
)
def test_meaningless_arguments(transform_type, arguments, named):
    with pytest.raises(UsageError, match=named):
        transform_type(**arguments)


def test_window_larger_than_the_padded_image():
    with pytest.raises(UsageError, match='33x33 does not fit into images of 20x28 padded by 2'):
        BatchRandomCrop(size=33, padding=2)(make_images())


def test_padding_too_wide_to_reflect():
    with pytest.raises(UsageError, match="padding=20 .* 20x28.*'edge'"):
        BatchRandomCrop(size=20, padding=20, pad_mode='reflect')(make_images())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_a_batch_in_which_no_image_is_mirrored_stays_as_it_is(memory_format):
    images = torch.arange(48, dtype=torch.uint8).view(2, 3, 2, 4).to(memory_format=memory_format)
    assert torch.equal(BatchRandomFlip(prob=0.0)(images), images)
