# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The glyph pool: the same bytes every time, all kinds of content, and a cache that heals."""

import os
import threading
import time
import warnings

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from mmdfkd.datasets import GlyphPool, ImagePool, PackedDataset, glyph_pool
from mmdfkd.utils import UsageError


@pytest.fixture(scope='module')
def pool(tmp_path_factory) -> GlyphPool:
    """A pool of 1,500 images, made for real."""
    return GlyphPool(1500, cache_dir=tmp_path_factory.mktemp('cache'))


@pytest.fixture
def quick(monkeypatch) -> list[int]:
    """Replaces drawing by noise for tests of the cache; counts the calls."""
    calls: list[int] = []

    def generate(num_images, image_size, seed):
        calls.append(seed)
        images = np.random.RandomState(seed).randint(
            0, 256, (num_images, image_size, image_size, 1)
        )
        return images.astype(np.uint8), np.zeros(num_images, np.uint8), np.full(num_images, 'a')

    monkeypatch.setattr(glyph_pool, 'generate', generate)
    return calls


# --- content ----------------------------------------------------------------------------------


def test_shares_of_the_kinds(pool):
    counts = np.bincount(pool.extra('kinds'), minlength=4)
    np.testing.assert_allclose(counts, np.array([0.35, 0.35, 0.2, 0.1]) * 1500, atol=1)


def test_batches_never_tell_what_they_show(pool):
    assert set(pool.__getitems__(range(9))) == {'inputs', 'index'}
    assert pool.labels is None and pool.metainfo == {'name': 'glyphs', 'classes': None}
    assert pool.images.shape == (1500, 32, 32, 1)


def test_no_blank_tile(pool):
    assert np.ptp(pool.images.reshape(1500, -1), axis=1).min() >= 10


def test_characters(pool):
    kinds, chars = pool.extra('kinds'), pool.extra('chars')
    assert set(chars[kinds == 0]) == set('0123456789')
    assert all(len(char) == 1 and char.isascii() and char.isalpha() for char in chars[kinds == 1])
    assert len(set(chars[kinds == 1])) == 52
    assert len(set(chars[kinds == 2])) > 200 and not set(chars[kinds == 2]) & set('0123456789')
    assert set(chars[kinds == 3]) == {'china.jpg', 'flower.jpg'}


def test_digits_show_the_digit_they_are_filed_under(pool):
    # Neighbours among 262 digits name 263 others far better than chance (10 %), so images and
    # characters belong together and the digits can be read.
    chosen = pool.extra('kinds') == 0
    pixels = pool.images[chosen].reshape(chosen.sum(), -1).astype(float)
    ink = np.abs(pixels - np.median(pixels, axis=1, keepdims=True))
    ink /= np.linalg.norm(ink, axis=1, keepdims=True)
    chars = pool.extra('chars')[chosen]
    half = len(ink) // 2
    nearest = KNeighborsClassifier(3).fit(ink[:half], chars[:half])
    assert nearest.score(ink[half:], chars[half:]) > 0.35


def test_both_polarities(pool):
    glyphs = pool.images[pool.extra('kinds') < 3].reshape(1350, -1).astype(float)
    light_on_dark = (glyphs.mean(axis=1) > np.median(glyphs, axis=1)).mean()
    assert 0.62 < light_on_dark < 0.78


# --- cache ------------------------------------------------------------------------------------


def test_the_cache_is_used_and_its_folder_names_the_parameters(tmp_path, quick, monkeypatch):
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path))
    first = GlyphPool(10)
    assert GlyphPool(10).content_hash == first.content_hash and quick == [0]
    assert len({first.root, GlyphPool(11).root, GlyphPool(10, seed=1).root}) == 3
    half = GlyphPool(10, ratio=0.5, ratio_seed=3)
    assert half.root == first.root and len(half) == len(half.extra('kinds')) == 5
    np.testing.assert_array_equal(
        half.subset, np.sort(np.random.RandomState(3).permutation(10)[:5])
    )
    monkeypatch.setattr(glyph_pool, 'GENERATOR_VERSION', 10**6)
    assert GlyphPool(10).root != first.root
    assert first.root.parent == tmp_path


def test_regenerate_makes_it_anew(tmp_path, quick):
    GlyphPool(10, cache_dir=tmp_path)
    GlyphPool(10, cache_dir=tmp_path, regenerate=True)
    assert len(quick) == 2 and len(list(tmp_path.iterdir())) == 1


def _flip(root):
    with open(root / 'images.npy', 'r+b') as file:
        file.seek(300)
        byte = file.read(1)[0]
        file.seek(300)
        file.write(bytes([byte ^ 255]))


@pytest.mark.parametrize(
    'damage',
    [
        _flip,
        lambda root: os.truncate(root / 'images.npy', 200),
        lambda root: os.remove(root / 'meta.json'),
    ],
)
def test_a_damaged_cache_is_made_anew_with_a_warning(tmp_path, quick, damage):
    first = GlyphPool(10, cache_dir=tmp_path)
    expected = first.content_hash
    del first
    damage(next(tmp_path.iterdir()))
    with pytest.warns(UserWarning, match='damaged and is made anew'):
        healed = GlyphPool(10, cache_dir=tmp_path)
    assert healed.content_hash == expected and len(quick) == 2
    healed.verify()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        GlyphPool(10, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_two_at_once_share_the_first_result(tmp_path, quick, monkeypatch):
    drawn, meet = glyph_pool.generate, threading.Barrier(2, timeout=30)

    def together(*args):
        meet.wait()  # both have found no cache
        return drawn(*args)

    monkeypatch.setattr(glyph_pool, 'generate', together)
    pools: list[GlyphPool] = []
    threads = [
        threading.Thread(target=lambda: pools.append(GlyphPool(10, cache_dir=tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(quick) == len(pools) == 2
    assert pools[0].root == pools[1].root and len(list(tmp_path.iterdir())) == 1
    pools[0].verify()


def test_leftovers_of_a_killed_run_are_ignored_and_cleaned(tmp_path, quick):
    root = GlyphPool(10, cache_dir=tmp_path).root
    leftover = tmp_path / f'.{root.name}.tmp-killed'
    leftover.mkdir()
    two_hours_ago = time.time() - 7200
    os.utime(leftover, (two_hours_ago, two_hours_ago))
    assert GlyphPool(10, cache_dir=tmp_path).root == root and not leftover.exists()
    assert len(quick) == 1


def test_an_unwritable_cache_names_the_variable(tmp_path, quick, monkeypatch):
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'file'))
    with pytest.raises(UsageError, match='MMDFKD_CACHE_DIR') as caught:
        GlyphPool(10)
    assert str(tmp_path / 'file') in str(caught.value)
    assert not quick  # it says so before the work, not after


def test_a_sound_cache_opens_where_nothing_can_be_written(tmp_path, quick, monkeypatch):
    GlyphPool(10, cache_dir=tmp_path)
    monkeypatch.setattr(os, 'access', lambda *_: False)
    assert len(GlyphPool(10, cache_dir=tmp_path)) == 10
    with pytest.raises(UsageError, match='MMDFKD_CACHE_DIR'):
        GlyphPool(10, cache_dir=tmp_path, regenerate=True)


def test_the_cache_is_a_plain_pool(tmp_path, quick):
    made = GlyphPool(10, cache_dir=tmp_path)
    opened = ImagePool(made.root)
    assert opened.content_hash == PackedDataset(np.array(made.images)).content_hash
    assert opened.meta['seed'] == 0 and 'pillow' in opened.meta['versions']


@pytest.mark.parametrize('wrong', [{'num_images': 0}, {'image_size': 7}, {'seed': -1}])
def test_wrong_arguments(tmp_path, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(UsageError, match=f'{name}={value}'):
        GlyphPool(cache_dir=tmp_path, **wrong)
