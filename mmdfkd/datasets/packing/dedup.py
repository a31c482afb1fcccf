# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Finding the images of a pool that also occur in another set, a validation set most of all.

A pool collected from ImageNet shares images with CINIC-10 and Tiny-ImageNet; so does any pool with
benchmarks made of web images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError
from mmdfkd.utils.progress import track

from ..image_pool import ImagePool, is_pool
from ..packed import PackedDataset
from ..row_view import RowView
from .decode import Recipe, decode_block, decode_image
from .sources import Source

#: Bits in which hashes of the same picture may differ.
MAX_DISTANCE = 6

# Simple pictures have near hashes by chance, for few of their frequencies stand out; so hits are
# compared by pixels. Of the digits, pairs from training and test set correlate by up to 0.9915.
# Hash and pixels together find 99.7 % of the test images of CIFAR-10 and Tiny-ImageNet after
# JPEG at quality 50 or halving and doubling the size, and 93 and 97 % of those brightened by
# 15 %: what was nearly white before differs in more than contrast then.
_LEAST_CORRELATION = 0.992
_FLAT = 4.0  # grey levels by which a picture varies so little that a correlation says nothing
_NOISE = 3.0  # grey levels of difference that compressing a flat picture makes

_CHUNK = 4096
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SIDE = 8  # frequencies per axis: 64 bits

Images = np.ndarray | RowView


class Duplicates(NamedTuple):
    """Images of a pool that occur elsewhere, D of them, ascending.

    Attributes:
        positions: Where in the pool, int64 (D,).
        partners: The nearest image of the other set, int64 (D,).
        distances: Bits in which their hashes differ, int64 (D,); -1 where all pixels are equal.
    """

    positions: np.ndarray
    partners: np.ndarray
    distances: np.ndarray


def find_duplicates(pool: Images, others: Images, max_distance: int = MAX_DISTANCE) -> Duplicates:
    """Compares every image of a pool with every image of another set.

    Args:
        pool: uint8 (N, H, W, C).
        others: uint8 (M, H, W, C), of the same size; see :func:`open_images`.
        max_distance: Most bits of 64 in which ``perceptual_hashes`` of a duplicate differ;
            its pixels must agree as well. A negative number finds equal pixels only.

    Returns:
        The duplicates, each with its nearest partner.
    """
    max_distance = max(max_distance, -1)
    nearest = np.full(len(pool), max_distance + 1, np.int64)
    partner = np.zeros(len(pool), np.int64)
    known: dict[bytes, int] = {}  # the same blank a hundred times is compared once
    for place, digest in enumerate(pixel_hashes(others)):
        known.setdefault(digest, place)
    if max_distance >= 0:
        hashes, theirs = perceptual_hashes(pool), perceptual_hashes(others)
        for place in track(list(known.values()), 'Comparing'):
            distances = popcount(hashes ^ theirs[place])
            hits = np.flatnonzero(distances < nearest)
            for near in np.split(hits, range(512, len(hits), 512)):
                same = near[_show_the_same(pool[near], others[[place]])]
                nearest[same], partner[same] = distances[same], place
    for place, digest in enumerate(pixel_hashes(pool)):
        if digest in known:
            nearest[place], partner[place] = -1, known[digest]
    found = np.flatnonzero(nearest <= max_distance)
    return Duplicates(found, partner[found], nearest[found])


def without_duplicates(
    pool: ImagePool,
    spec: str | os.PathLike,
    max_distance: int = MAX_DISTANCE,
    others: PackedDataset | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Takes out of a pool what occurs in another set.

    Args:
        pool: The whole pool.
        spec: What :func:`open_images` opens.
        max_distance: See :func:`find_duplicates`.
        others: The set, where it is open already.

    Returns:
        Ascending positions of the other images, int64 (M,); and what to tell about those taken
        out: ``against``, ``images_there``, ``exact`` and ``perceptual`` (their numbers) and
        ``pairs`` (position in the pool, in the other set, bits that differ or -1).
    """
    if others is None:
        others = open_images(spec, recipe_of(pool))
    found = find_duplicates(pool.images, others.images, max_distance)
    exact = int((found.distances < 0).sum())
    facts = {
        'against': str(spec),
        'images_there': len(others),
        'max_distance': max_distance,
        'exact': exact,
        'perceptual': len(found.positions) - exact,
        'pairs': np.stack(found, axis=1).tolist(),
    }
    return np.setdiff1d(np.arange(len(pool)), found.positions), facts


def pixel_hashes(images: Images) -> Iterator[bytes]:
    """Yields for N images the first 16 bytes of the sha256 of their pixels."""
    for first in range(0, len(images), _CHUNK):
        for image in images[first : first + _CHUNK]:
            yield hashlib.sha256(image.tobytes()).digest()[:16]


def perceptual_hashes(images: Images) -> np.ndarray:
    """Hashes that hardly change when an image is resized, compressed or brightened.

    A bit for each of the 8 x 8 lowest frequencies of the luma's cosine transform: whether it is
    above their median ("Implementation and benchmarking of perceptual image hash functions",
    Zauner 2010, https://www.phash.org/docs/pubs/thesis_zauner.pdf, section 3.2.1, taken straight
    from the small image).

    Args:
        images: uint8 (N, H, W, C), at least 8 pixels high and wide.

    Returns:
        uint64 (N,).
    """
    if min(images.shape[1:3]) < _SIDE:
        raise UsageError(
            f'Images of {images.shape[2]} x {images.shape[1]} pixels are too small to be told '
            f'apart; look for duplicates in a pool of at least {_SIDE} pixels.'
        )
    least = 0.01 * images.shape[1] * images.shape[2]  # below it is rounding, as in a flat image
    hashes = np.empty(len(images), np.uint64)
    for first in range(0, len(images), _CHUNK):
        spectrum = _spectrum(np.asarray(images[first : first + _CHUNK]))
        bits = spectrum > np.median(spectrum, axis=1, keepdims=True) + least
        hashes[first : first + _CHUNK] = np.packbits(bits, axis=1).view('>u8')[:, 0]
    return hashes


def popcount(values: np.ndarray) -> np.ndarray:
    """Counts the ones in uint64 (N,): uint8 (N,)."""
    if hasattr(np, 'bitwise_count'):  # numpy 2
        return np.bitwise_count(values)
    return _ones_of_16_bits()[values.view(np.uint16).reshape(-1, 4)].sum(1, dtype=np.uint8)


def recipe_of(pool: ImagePool) -> Recipe:
    """Returns how images were made into those of a pool.

    Raises:
        UsageError: They are no squares.
    """
    _, height, width, channels = pool.images.shape
    if height != width:
        raise UsageError(f'{pool.root} has {width} x {height} images; expected squares.')
    recipe = Recipe(height, pool.meta.get('filter', 'box'), pool.meta.get('mode', 'squash'))
    return recipe._replace(grey=channels == 1)


def open_images(spec: str | os.PathLike, recipe: Recipe) -> PackedDataset:
    """Opens what a pool is to be compared with, at the size and in the colours of the pool.

    Args:
        spec: A pool's folder, a config (the set of its ``val_dataloader``), or anything that can
            be packed: a folder, tar, zip or batch of images, read with the pool's own filter.
        recipe: That of the pool.

    Raises:
        UsageError: It is none of these, or holds no image.
    """
    if is_pool(spec):
        return _fitted(ImagePool(spec), recipe)
    if Path(spec).suffix == '.py':
        return _fitted(_validation_set(spec), recipe)
    recipe.check()
    # What cannot be read cannot be a validation image.
    entries = track(Source(spec), f'Reading {spec}')
    rows = [decode_block([entry.content], recipe)[0] for entry in entries]
    if not any(map(len, rows)):
        raise UsageError(f'{spec} holds no readable image, so there is nothing to compare with.')
    return PackedDataset(np.concatenate(rows), metainfo={'name': str(spec)})


def _fitted(dataset: PackedDataset, recipe: Recipe) -> PackedDataset:
    if dataset.images.shape[1:] == recipe.shape:
        return dataset
    rows = [decode_image(dataset.images[place], recipe) for place in range(len(dataset))]
    return PackedDataset(np.stack(rows), metainfo=dataset.metainfo)


def _validation_set(path: str | os.PathLike) -> PackedDataset:
    from mmengine.registry import init_default_scope

    from mmdfkd.utils.config_read import load_config

    config = load_config(path)
    loader = config.get('val_dataloader')
    if not loader:
        raise UsageError(f'{path} has no val_dataloader. Give a config of a set to validate on.')
    init_default_scope(config.get('default_scope', 'mmdfkd'))
    return DATASETS.build(loader.dataset)


def _show_the_same(images: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Tells which pictures equal another one in whatever brightness and contrast.

    Args:
        images: uint8 (N, H, W, C).
        other: uint8 (1, H, W, C).

    Returns:
        bool (N,).
    """
    differences = images.astype(np.float32) - other
    is_near = np.sqrt((differences**2).mean((1, 2, 3))) <= _NOISE
    varies = [batch.std((1, 2)).mean(-1) > _FLAT for batch in (images, other)]
    left, right = (_spectrum(batch)[:, 1:] for batch in (images, other))  # without the mean
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right)
    return is_near | (varies[0] & varies[1] & (left @ right[0] >= _LEAST_CORRELATION * lengths))


def _spectrum(images: np.ndarray) -> np.ndarray:
    """The 8 x 8 lowest frequencies of the luma, uint8 (N, H, W, C): float32 (N, 64)."""
    rows, columns = (_cosines(length) for length in images.shape[1:3])
    values = images.astype(np.float32)
    luma = values @ _LUMA if values.shape[3] == 3 else values[..., 0]
    return (rows @ luma @ columns.T).reshape(len(images), _SIDE * _SIDE)


def _cosines(length: int) -> np.ndarray:
    """First 8 rows of the DCT-II of ``length`` points: float32 (8, length)."""
    frequency, place = np.arange(_SIDE)[:, None], np.arange(length)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * length)).astype(np.float32)


@lru_cache
def _ones_of_16_bits() -> np.ndarray:
    bits = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1)
    return bits.sum(1, dtype=np.uint8)
