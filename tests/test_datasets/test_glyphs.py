# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import hashlib
import os

import numpy as np
import pytest

from mmdfkd.datasets import glyphs


def test_symbol_fonts_give_no_false_digits():
    digits, letters, symbols = glyphs._find_glyphs()
    fonts_of = [
        {os.path.basename(glyph.font.path) for glyph in found} for found in (digits, symbols)
    ]
    assert {'DejaVuSans.ttf', 'STIXGeneral.ttf', 'cmr10.ttf'} <= fonts_of[0]
    # At '0' cmsy10 has a prime and cmex10 a piece of a parenthesis.
    assert not {'cmsy10.ttf', 'cmex10.ttf', 'STIXSizOneSymReg.ttf'} & fonts_of[0]
    assert {'cmsy10.ttf', 'cmex10.ttf', 'STIXSizOneSymReg.ttf'} <= fonts_of[1]
    assert len(digits) == 10 * len(fonts_of[0]) and len(letters) >= 52 * len(fonts_of[0])


def test_two_generations_give_the_same_bytes():
    first, again, other = (glyphs.generate(120, 24, seed) for seed in (5, 5, 6))
    digests = [hashlib.sha256(images.tobytes()).hexdigest() for images, _, _ in (first, again)]
    assert digests[0] == digests[1]
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[2], again[2])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize('num_images', [1, 3])
def test_tiny_pools_can_be_made(num_images):
    images, kinds, chars = glyphs.generate(num_images, 8, 0)
    assert images.shape == (num_images, 8, 8, 1) and len(kinds) == len(chars) == num_images


def test_a_last_chunk_of_photographs_only():
    # 1,001 images are drawn as 1,000 and 1, which by this seed is a photograph.
    images, kinds, chars = glyphs.generate(1001, 8, 18)
    assert kinds[1000] == 3 and chars[1000] in {'china.jpg', 'flower.jpg'}
    assert np.ptp(images[1000]) >= 10
