# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import importlib.util
import io
import struct
import zlib
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from mmdfkd.datasets.packing import decode as decode_module
from mmdfkd.datasets.packing.decode import Recipe, UnreadableImage, decode_block, decode_image
from mmdfkd.utils import UsageError

from .conftest import encode

RED, GREEN = (255, 0, 0), (0, 255, 0)


def save(image, format='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decode(data, size=2, **recipe):
    return decode_image(data, Recipe(size, **recipe))


def halves(left=RED, right=GREEN, mode='RGB', size=(4, 4)):
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def test_box_averages_blocks():
    # 4x4 -> 2x2: each result is the mean of its 2x2 block, e.g. (0 + 1 + 4 + 5) / 4 = 2.5 -> 3.
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(decode(encode(pixels), grey=True)[..., 0], [[3, 5], [11, 13]])


@pytest.mark.parametrize('filter', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [8, 20])
def test_filters_are_torchvisions_antialiased_ones(filter, size):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = TF.resize(image, [size, size], TF.InterpolationMode(filter), antialias=True)
    found = decode(encode(pixels), size, filter=filter).transpose(2, 0, 1)
    assert np.abs(found.astype(int) - expected.numpy()).max() <= 1


@pytest.mark.parametrize('sides', [(24, 36), (36, 24)])
def test_center_crop_is_torchvisions(sides):
    pixels = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
    image = TF.center_crop(torch.from_numpy(pixels).permute(2, 0, 1), [24, 24])
    expected = TF.resize(image, [8, 8], TF.InterpolationMode.BILINEAR, antialias=True)
    recipe = dict(filter='bilinear', mode='center-crop')
    found = decode(encode(pixels), 8, **recipe).transpose(2, 0, 1)
    assert np.abs(found.astype(int) - expected.numpy()).max() <= 1


def test_pixels_of_that_size_pass_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for filter in ('box', 'lanczos'):
        np.testing.assert_array_equal(decode(pixels, 8, filter=filter), pixels)
    np.testing.assert_array_equal(decode(pixels[..., :1], 8, grey=True), pixels[..., :1])


def test_grey_is_rec_601():
    # 0.299 * 255 = 76.2 for red, 0.587 * 255 = 149.7 for green
    found = decode(save(halves()), grey=True)
    np.testing.assert_array_equal(found[..., 0], [[76, 150], [76, 150]])


@pytest.mark.parametrize(
    ('image', 'format', 'left'),
    [
        (halves((0, 255, 255, 0), (255, 0, 255, 0), 'CMYK'), 'TIFF', RED),
        (halves().convert('P'), 'PNG', RED),
        (halves().convert('P'), 'GIF', RED),
        (halves((255, 0, 0, 255), (0, 255, 0, 255), 'RGBA'), 'PNG', RED),
        (halves((255, 0, 0, 0), (0, 255, 0, 255), 'RGBA'), 'PNG', (255, 255, 255)),
        (halves((255, 0, 0, 51), (0, 255, 0, 255), 'RGBA'), 'PNG', (255, 204, 204)),
        (halves((0, 0), (255, 255), 'LA'), 'PNG', (255, 255, 255)),
        (halves(0, 1, '1'), 'PNG', (0, 0, 0)),
        (halves(128, 255, 'L'), 'PNG', (128, 128, 128)),
        (halves(), 'PPM', RED),
        (halves(), 'BMP', RED),
    ],
)
def test_modes(image, format, left):
    np.testing.assert_array_equal(decode(save(image, format))[0, 0], left)


def test_cmyk_jpeg():
    # as Adobe writes it, inverted; its colours survive JPEG to a few levels
    data = save(halves((0, 255, 255, 0), (255, 0, 255, 0), 'CMYK', (32, 32)), 'JPEG', quality=95)
    assert np.abs(decode(data)[0].astype(int) - [RED, GREEN]).max() < 8


def test_palette_with_a_transparent_colour_lies_on_white():
    image = Image.new('P', (4, 4), 0)
    image.putpalette([*RED, *GREEN])
    np.testing.assert_array_equal(decode(save(image, transparency=0))[0, 0], (255, 255, 255))


@pytest.mark.parametrize('format', ['PNG', 'TIFF'])
def test_16_bits(format):
    # 257 = 65535 / 255, so 257 k is exactly k, and 257 k + 128 the last that is nearer to k
    pixels = np.array([[129, 257 * 7 + 128], [257 * 254 + 128, 65535]], np.uint16)
    found = decode(save(Image.fromarray(pixels), format), grey=True)
    np.testing.assert_array_equal(found[..., 0], [[1, 7], [254, 255]])


def test_first_frame_of_an_animation():
    frames = [Image.new('RGB', (4, 4), colour) for colour in (RED, GREEN)]
    for format in ('GIF', 'WEBP'):
        options = dict(save_all=True, append_images=frames[1:])
        if format == 'WEBP':
            options['lossless'] = True
        np.testing.assert_array_equal(decode(save(frames[0], format, **options))[0, 0], RED)


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF'])
def test_camera_rotation_is_undone(format):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the scene is on the left of the file
    options = dict(exif=exif) if format != 'JPEG' else dict(exif=exif, quality=100, subsampling=0)
    found = decode(save(halves(size=(16, 16)), format, **options)).astype(int)
    assert np.abs(found[0] - RED).max() < 8 and np.abs(found[1] - GREEN).max() < 8


def png_claiming(width, height):
    def chunk(kind, data):
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')
    )


WHOLE = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), 'JPEG')


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'the file is empty'),
        (b'<html>not found</html>', 'no image format'),
        (WHOLE[: len(WHOLE) // 2], 'truncated'),
        (WHOLE[:20], 'no image format|truncated'),
        (png_claiming(20000, 20000), r'an image bomb: Image size \(400000000 pixels\)'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no image format'),  # runs programs
        (save(Image.new('F', (4, 4), 0.5), 'TIFF'), 'floats'),
        (save(Image.fromarray(np.full((4, 4), 10**6, np.int32)), 'TIFF'), '32-bit'),
        (save(Image.fromarray(np.arange(256, dtype=np.int32)[None]), 'TIFF'), '32-bit'),
    ],
)
def test_unreadable(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(UnreadableImage, match='No such file'):
        decode(str(tmp_path / 'gone.png'))


def test_a_file_too_large_to_be_a_photograph(tmp_path):
    with open(tmp_path / 'huge.png', 'wb') as file:
        file.truncate(2**28 + 1)  # sparse: takes no room on the disk
    with pytest.raises(UnreadableImage, match='larger than 256 MiB'):
        decode(tmp_path / 'huge.png')


def test_block_keeps_what_it_can(tmp_path):
    contents = [save(halves()), b'', UnreadableImage('encrypted'), save(halves(GREEN, RED))]
    rows, reasons = decode_block(contents, Recipe(2))
    assert reasons == {1: 'the file is empty', 2: 'encrypted'}
    np.testing.assert_array_equal(rows[:, 0, 0], [RED, GREEN])


@pytest.fixture
def fresh_decode():
    """The module as a process has it that has decoded nothing yet."""
    spec = importlib.util.spec_from_file_location('fresh_decode', decode_module.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_threads_see_all_formats(fresh_decode, monkeypatch):
    # While the first thread asks for the third format of its list, another decodes a BMP.
    data, decoded = save(halves(), 'BMP'), []

    class Openers(dict):
        def __contains__(self, name):
            if name == 'WEBP' and not decoded:
                decoded.append(None)
                thread = Thread(target=lambda: decoded.append(fresh_decode.open_image(data)))
                thread.start()
                thread.join()
            return super().__contains__(name)

    Image.init()
    monkeypatch.setattr(Image, 'OPEN', Openers(Image.OPEN))
    assert fresh_decode.open_image(data).size == (4, 4)
    assert len(decoded) == 2 and decoded[1].size == (4, 4)


@pytest.mark.parametrize('bad', [dict(filter='nearest'), dict(mode='stretch'), dict(size=0)])
def test_recipe_is_checked(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Recipe(**{'size': 8, **bad}).check()
