# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Images of every kind become RGB or grey; what is no sound image is named and refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as T

from mmdfkd.datasets.labelled.decode import decode_image, fit_array
from mmdfkd.utils import UsageError

RED = (255, 0, 0)


def decode(data, image_size=None, grey=False):
    return decode_image(data, 'cat/1.png', image_size, grey)


def test_png_comes_back_exactly(noise, encode):
    image = noise(1, 9)[0]
    np.testing.assert_array_equal(decode(encode(image)), image)
    grey = noise(1, 9, 1)[0]
    np.testing.assert_array_equal(decode(encode(grey), grey=True), grey)
    np.testing.assert_array_equal(decode(encode(grey)), grey.repeat(3, axis=2))


def test_grey_is_luma():
    # ITU-R 601: 0.299 * 255 = 76.2, 0.587 * 255 = 149.7, 0.114 * 255 = 29.1
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(fit_array(image, None, True)[0, :, 0], [76, 150, 29])


@pytest.mark.parametrize('size', [5, 16, 40])
def test_resize_is_that_of_torchvision(size, noise):
    # Another implementation of the antialiased bilinear filter, which rounds on its own.
    image = noise(1, 16)[0]
    ours = fit_array(image, size, False)
    theirs = T.resize(torch.from_numpy(image).permute(2, 0, 1), [size, size], antialias=True)
    difference = ours.astype(int) - theirs.permute(1, 2, 0).numpy()
    assert ours.shape == (size, size, 3)
    assert np.abs(difference).max() <= 1


def test_whole_image_is_squeezed_into_the_square():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 200
    # Four pixels become one: a triangle of weights 1 - |d| / 4 around x = 2 covers six pixels,
    # of which 0.375 + 0.125 of 3.5 fall on the bright half: 200 * 0.5 / 3.5 = 28.6.
    np.testing.assert_array_equal(fit_array(image, 2, True)[..., 0], [[29, 171], [29, 171]])


@pytest.mark.parametrize(
    'mode, format', [('CMYK', 'JPEG'), ('P', 'PNG'), ('P', 'GIF'), ('1', 'PNG'), ('LA', 'PNG')]
)
def test_colour_spaces(mode, format, encode):
    image = Image.new('RGB', (8, 8), 'white').convert(mode)
    np.testing.assert_allclose(decode(encode(image, format)), 255, atol=1)


def test_palette_keeps_its_colours(encode):
    image = Image.new('RGB', (4, 4), RED).convert('P', palette=Image.Palette.ADAPTIVE)
    assert decode(encode(image))[0, 0].tolist() == [*RED]


def test_sixteen_bits_are_scaled(encode):
    # 0, 257 * 100 and 65535 are 0, 100 and 255 of 255.
    image = Image.fromarray(np.array([[0, 25700, 65535]], np.uint16))
    assert decode(encode(image), grey=True)[0, :, 0].tolist() == [0, 100, 255]
    # 200 of 65535 is next to black, although it would fit into 8 bits.
    dark = Image.fromarray(np.array([[0, 200]], np.uint16))
    assert decode(encode(dark), grey=True)[0, :, 0].tolist() == [0, 1]


@pytest.mark.parametrize('kind', [np.float32, np.int32])
def test_unbounded_pixels_are_refused(kind, encode):
    image = Image.fromarray(np.array([[0, 100000]], kind))
    with pytest.raises(UsageError, match='black and white are undefined'):
        decode(encode(image, 'TIFF'))


def test_transparency_lies_on_white(encode):
    image = Image.new('RGBA', (2, 1), (*RED, 0))
    image.putpixel((1, 0), (*RED, 255))
    assert decode(encode(image)).tolist() == [[[255, 255, 255], [*RED]]]
    palette = Image.new('P', (1, 1), 0)
    palette.putpalette([0, 0, 0])
    assert decode(encode(palette, transparency=0)).tolist() == [[[255, 255, 255]]]


def test_first_frame_of_an_animation(encode):
    red, blue = (Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue'))
    data = encode(red, 'GIF', save_all=True, append_images=[blue])
    assert decode(data)[0, 0].tolist() == [*RED]


def test_camera_rotation_is_applied(encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first column of what is stored is the top of the scene
    image = Image.new('RGB', (4, 2))
    image.paste('white', (0, 0, 2, 2))  # the left half, hence the upper half of the scene
    assert decode(encode(image, exif=exif))[..., 0].tolist() == [[255, 255]] * 2 + [[0, 0]] * 2


def test_empty_and_damaged_files_are_named(noise, encode):
    sound = encode(noise(1, 64)[0])
    for data, reason in (
        (b'', 'the file is empty'),
        (b'GIF89a?', 'cannot be decoded'),
        (b'<html>', 'no image format'),
        (sound[: len(sound) // 2], 'cannot be decoded'),
        (encode(noise(1, 64)[0], 'JPEG')[:900], 'cannot be decoded'),
    ):
        with pytest.raises(UsageError, match=f'cat/1.png.*({reason})'):
            decode(data)


def make_bomb(side):
    """A PNG of a few hundred bytes that claims to have side x side pixels."""

    def chunk(kind, content):
        check = struct.pack('>I', zlib.crc32(kind + content))
        return struct.pack('>I', len(content)) + kind + content + check

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    content = chunk(b'IDAT', zlib.compress(bytes(10000)))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + content + chunk(b'IEND', b'')


def test_image_bomb_is_refused_before_decoding():
    # 3.6 thousand million pixels are 10 GiB; PIL refuses from 179 million on.
    with pytest.raises(UsageError, match='cat/1.png.*an image bomb.*3600000000 pixels'):
        decode(make_bomb(60000))
