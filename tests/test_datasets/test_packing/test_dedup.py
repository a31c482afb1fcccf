# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import io

import numpy as np
import pytest
from PIL import Image

from mmdfkd.datasets import DigitsDataset, ImagePool, write_pool
from mmdfkd.datasets.packing import dedup, find_duplicates, open_images, without_duplicates
from mmdfkd.utils import UsageError

from .conftest import encode, smooth, write_folder


@pytest.fixture(scope='module')
def images():
    """60 pictures of 32 pixels."""
    random = np.random.default_rng(0)
    return np.stack([smooth(random, 32, details=16) for _ in range(60)])


def jpeg(pixels):
    image = Image.open(io.BytesIO(encode(pixels, 'JPEG', quality=60)))
    return np.asarray(image)


def test_hash_of_a_known_picture():
    # Black on the left, white on the right: the sum of 255 cos(pi x (2 n + 1) / 16) over the
    # columns n = 4..7 is negative for x = 1, 5, positive for x = 0, 3, 7 and 0 for x = 2, 4, 6.
    # Rows are alike: all else is 0, the median too. Bit (0, 0) is 2^63, bit (0, x) 2^(63 - x).
    picture = np.zeros((1, 8, 8, 1), np.uint8)
    picture[:, :, 4:] = 255
    assert dedup.perceptual_hashes(picture)[0] == 2**63 + 2**60 + 2**56
    flat = np.full((3, 8, 8, 3), [[[[0]]], [[[99]]], [[[255]]]], np.uint8)
    assert dedup.perceptual_hashes(flat).tolist() == [0, 2**63, 2**63]


def test_popcount_with_and_without_numpy_2(monkeypatch):
    values = np.array([0, 1, 2**63, 2**64 - 1, 0b1011], np.uint64)
    assert dedup.popcount(values).tolist() == [0, 1, 1, 64, 3]
    monkeypatch.delattr(np, 'bitwise_count', raising=False)
    assert dedup.popcount(values).tolist() == [0, 1, 1, 64, 3]


def test_finds_copies_and_nothing_else(images):
    pool, others = images[:50].copy(), images[40:].copy()
    # 40 and 41 are in both untouched, 42 brighter, 43 compressed, 44 in another size before
    pool[42] = np.clip(pool[42] * 1.15 + 5, 0, 255).astype(np.uint8)
    pool[43] = jpeg(pool[43])
    small = Image.fromarray(pool[44]).resize((24, 24), Image.Resampling.LANCZOS)
    pool[44] = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))
    pool[45:] = 255 - pool[45:]
    found = find_duplicates(pool, others)
    assert found.positions.tolist() == [40, 41, 42, 43, 44]
    assert found.partners.tolist() == [0, 1, 2, 3, 4]
    assert found.distances[:2].tolist() == [-1, -1]
    assert (found.distances[2:] >= 0).all()
    exact = find_duplicates(pool, others, max_distance=-1)
    assert exact.positions.tolist() == [40, 41]
    np.testing.assert_array_equal(find_duplicates(pool[..., :1], others[..., :1])[0][:2], [40, 41])


def test_two_images_of_equal_hash_and_other_pixels(images):
    other = images[:1].copy()
    other[0, 0, 0, 0] ^= 1
    found = find_duplicates(images, other)
    assert (found.positions.tolist(), found.distances.tolist()) == ([0], [0])
    assert len(find_duplicates(images, other, max_distance=-1).positions) == 0


def test_simple_pictures_share_a_hash_but_are_no_duplicates():
    y, x = np.mgrid[:32, :32] - 15.5
    radius = np.hypot(x, y)
    shapes = np.stack([x > 0, x / 31 + 0.5, radius < 9, abs(radius - 9) < 2, abs(x * y) < 9])
    shapes = (255 * shapes[..., None]).astype(np.uint8)
    blanks = np.full((3, 32, 32, 1), [[[[255]]], [[[99]]], [[[101]]]], np.uint8)
    assert dedup.popcount(dedup.perceptual_hashes(shapes) ^ np.uint64(2**63)).min() <= 6
    assert len(find_duplicates(shapes, blanks).positions) == 0
    for k in range(len(shapes)):
        assert find_duplicates(shapes, jpeg(shapes[k, ..., 0])[None, ..., None])[0].tolist() == [k]
    found = find_duplicates(blanks[:2], blanks[2:])  # as near as after JPEG
    assert (found.positions.tolist(), found.distances.tolist()) == ([1], [0])
    train, test = DigitsDataset('train'), DigitsDataset('test')
    assert len(find_duplicates(train.images, test.images).positions) == 0
    copies = (test.images * 0.8).astype(np.uint8)
    assert find_duplicates(copies, test.images).partners.tolist() == list(range(500))


def test_images_too_small_to_tell_apart():
    with pytest.raises(UsageError, match='4 x 6 pixels are too small'):
        dedup.perceptual_hashes(np.zeros((2, 6, 4, 3), np.uint8))


@pytest.fixture
def pool(tmp_path, images):
    return ImagePool(write_pool(tmp_path / 'pool', images, 'pool', meta={'filter': 'bicubic'}))


def test_against_a_folder_a_pool_and_a_config(tmp_path, images, pool):
    random = np.random.default_rng(1)
    large = [smooth(random, 64) for _ in range(3)]
    folder = write_folder(
        tmp_path / 'val',
        {
            'a.png': encode(images[7]),
            **{f'{k}.png': encode(image) for k, image in enumerate(large)},
            'broken.png': b'',
        },
    )
    opened = open_images(folder, dedup.recipe_of(pool))
    assert opened.images.shape == (4, 32, 32, 3)
    expected = Image.fromarray(large[0]).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(opened.images[0], expected)  # by the pool's own filter
    write_pool(tmp_path / 'val_pool', images[7:9], 'val')
    (tmp_path / 'config.py').write_text(
        f"val_dataloader = dict(dataset=dict(type='ImagePool', root='{tmp_path}/val_pool'))"
    )
    for spec, kept in ((folder, 59), (tmp_path / 'val_pool', 58), (tmp_path / 'config.py', 58)):
        positions, facts = without_duplicates(pool, spec)
        assert len(positions) == kept and 7 not in positions
        assert facts['exact'] == 60 - kept and facts['perceptual'] == 0
        assert facts['pairs'][0][0] == 7


def test_against_a_folder_cut_like_the_pool(tmp_path):
    wide = smooth(np.random.default_rng(2), 96)[:64]
    square = Image.fromarray(wide[:, 16:80]).resize((32, 32), Image.Resampling.BOX)
    cut = ImagePool(
        write_pool(tmp_path / 'cut', np.asarray(square)[None], 'cut', meta={'mode': 'center-crop'})
    )
    folder = write_folder(tmp_path / 'val', {'a.png': encode(wide)})
    np.testing.assert_array_equal(open_images(folder, dedup.recipe_of(cut)).images, cut.images)


def test_other_sizes_and_colours_are_fitted(tmp_path, images, pool):
    write_pool(tmp_path / 'grey', images[:3, ::2, ::2, :1], 'grey')
    assert open_images(tmp_path / 'grey', dedup.recipe_of(pool)).images.shape == (3, 32, 32, 3)
    grey = ImagePool(tmp_path / 'grey')
    assert open_images(pool.root, dedup.recipe_of(grey)).images.shape == (60, 16, 16, 1)


def test_nothing_to_compare_with(tmp_path, pool):
    write_folder(tmp_path / 'val', {'broken.png': b''})
    with pytest.raises(UsageError, match='val holds no readable image'):
        open_images(tmp_path / 'val', dedup.recipe_of(pool))
    (tmp_path / 'config.py').write_text('x = 1')
    with pytest.raises(UsageError, match='config.py has no val_dataloader'):
        open_images(tmp_path / 'config.py', dedup.recipe_of(pool))
