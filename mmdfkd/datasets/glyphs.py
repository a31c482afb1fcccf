# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Drawing the images of a :class:`~mmdfkd.datasets.GlyphPool` from a seed."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont
from torch import Tensor

from mmdfkd.utils.progress import track

GENERATOR_VERSION = 1  # raise it with every change that may change a pixel
DIGIT, LETTER, SYMBOL, PHOTO = range(4)
SHARES = (0.35, 0.35, 0.20, 0.10)

_ATLAS_SIDE = 64  # pixels of a rendered mask ...
_ATLAS_FILL = 56  # ... of which the longer side of the glyph takes this many
_CHUNK = 1000
_DIGIT_NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
# Unicode blocks whose characters count as symbols in a font of thousands of glyphs.
_SYMBOL_BLOCKS = (
    (0x0021, 0x00BF),  # ASCII and Latin-1 punctuation and signs
    (0x0370, 0x03FF),  # Greek
    (0x2010, 0x205E),  # general punctuation
    (0x20A0, 0x20BF),  # currency
    (0x2190, 0x22FF),  # arrows and mathematical operators
    (0x25A0, 0x26FF),  # geometric shapes and miscellaneous symbols
)


def generate(
    num_images: int, image_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the images of a :class:`GlyphPool`.

    Args:
        num_images: Number of images N.
        image_size: Side S of the images in pixels.
        seed: Seed of numpy's PCG64, from which every parameter is drawn.

    Returns:
        Images uint8 (N, S, S, 1), kinds uint8 (N,) and characters as strings (N,).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    bounds = np.rint(np.cumsum((0, *SHARES)) * num_images).astype(int)
    kinds = np.repeat(np.arange(4, dtype=np.uint8), np.diff(bounds))
    random.shuffle(kinds)

    masks, rows, chars = _draw_glyphs(random, kinds)
    crops, names = _draw_photos(random, int((kinds == PHOTO).sum()), image_size)
    chars[kinds == PHOTO] = names
    rows[kinds == PHOTO] = np.arange(len(crops))

    images = np.empty((num_images, image_size, image_size, 1), np.uint8)
    chunks = [slice(i, i + _CHUNK) for i in range(0, num_images, _CHUNK)]
    for part in track(chunks, 'Drawing the glyph pool'):
        glyph = kinds[part] != PHOTO
        canvas = torch.empty(len(glyph), image_size, image_size)
        if glyph.any():
            drawn = _compose(random, masks[rows[part][glyph]], image_size)
            canvas[torch.from_numpy(glyph)] = drawn
        canvas[torch.from_numpy(~glyph)] = torch.from_numpy(crops[rows[part][~glyph]])
        canvas = _degrade(random, canvas)
        images[part, ..., 0] = canvas.mul_(255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    return images, kinds, chars


# --- what to show -----------------------------------------------------------------------------


class _Glyph(NamedTuple):
    font: FreeTypeFont
    char: str
    name: str


def _draw_glyphs(
    random: np.random.Generator, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws for each image a character, then one of the fonts that have it.

    Returns the masks (M, 64, 64) uint8, the row of each image among them, and the characters.
    """
    rows = np.zeros(len(kinds), np.int64)
    chars = np.full(len(kinds), '', dtype='U32')
    masks: list[np.ndarray] = []
    for kind, glyphs in enumerate(_find_glyphs()):
        glyphs.sort(key=lambda glyph: glyph.name)
        names, first, count = np.unique(
            [glyph.name for glyph in glyphs], return_index=True, return_counts=True
        )
        images = np.flatnonzero(kinds == kind)
        choice = random.integers(len(names), size=len(images))
        chars[images] = names[choice]
        drawn, places = np.unique(
            first[choice] + random.integers(count[choice]), return_inverse=True
        )
        rows[images] = len(masks) + places
        masks += [_render(glyphs[i]) for i in drawn]
    return np.reshape(masks, (-1, _ATLAS_SIDE, _ATLAS_SIDE)).astype(np.uint8), rows, chars


def _find_glyphs() -> tuple[list[_Glyph], list[_Glyph], list[_Glyph]]:
    """Lists digits, letters and symbols of matplotlib's fonts, by the names of their glyphs.

    The names decide, since TeX's symbol fonts keep arrows and brackets where digits should be.
    """
    import matplotlib
    from fontTools.ttLib import TTFont

    found: tuple[list[_Glyph], list[_Glyph], list[_Glyph]] = ([], [], [])
    for path in sorted(Path(matplotlib.get_data_path(), 'fonts', 'ttf').glob('*.ttf')):
        if path.name.startswith('LastResort'):  # nothing but placeholders for missing glyphs
            continue
        font = ImageFont.truetype(str(path), 64, layout_engine=ImageFont.Layout.BASIC)
        with TTFont(path, lazy=True) as tables:
            names = tables.getBestCmap()
        is_small = len(names) < 400
        for code, name in sorted(names.items()):
            char = chr(code)
            left, top, right, bottom = font.getbbox(char)
            is_blank = right <= left or bottom <= top
            if is_blank or unicodedata.category(char) == 'Co':  # private: it may show anything
                continue
            if char in '0123456789' and name.startswith(_DIGIT_NAMES[int(char)]):
                found[DIGIT].append(_Glyph(font, char, char))
            elif char.isascii() and char.isalpha() and name == char:
                found[LETTER].append(_Glyph(font, char, char))
            elif is_small or _is_symbol(char):
                found[SYMBOL].append(_Glyph(font, char, name))
    return found


def _is_symbol(char: str) -> bool:
    in_block = any(first <= ord(char) <= last for first, last in _SYMBOL_BLOCKS)
    return in_block and unicodedata.category(char)[0] in 'LPS'


def _render(glyph: _Glyph) -> np.ndarray:
    """Renders a glyph in white on black, its longer side 56 of 64 pixels: uint8 (64, 64)."""
    left, top, right, bottom = glyph.font.getbbox(glyph.char)
    tight = Image.new('L', (round(right - left), round(bottom - top)))
    ImageDraw.Draw(tight).text((-left, -top), glyph.char, fill=255, font=glyph.font)
    box = tight.getbbox() or (0, 0, *tight.size)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = _ATLAS_FILL / max(width, height)
    size = max(6, round(width * scale)), max(6, round(height * scale))
    mask = np.zeros((_ATLAS_SIDE, _ATLAS_SIDE), np.uint8)
    x, y = (_ATLAS_SIDE - size[0]) // 2, (_ATLAS_SIDE - size[1]) // 2
    mask[y : y + size[1], x : x + size[0]] = np.asarray(
        tight.resize(size, Image.Resampling.BILINEAR, box=box)
    )
    return mask


def _draw_photos(
    random: np.random.Generator, count: int, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crops squares of any scale from scikit-learn's photographs, avoiding flat sky.

    Returns the crops float32 (count, S, S) in [0, 1] and the names of the photographs.
    """
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    photos = [Image.fromarray(photo).convert('L') for photo in sample.images]
    names = np.array([Path(name).name for name in sample.filenames])
    crops = np.empty((count, image_size, image_size), np.float32)
    choice = random.integers(len(photos), size=count)
    for crop, photo in zip(crops, choice, strict=True):
        width, height = photos[photo].size
        for _ in range(20):
            side = image_size * (min(width, height) / image_size) ** random.random()
            x, y = random.random() * (width - side), random.random() * (height - side)
            crop[:] = photos[photo].resize(
                (image_size, image_size),
                Image.Resampling.BILINEAR,
                box=(x, y, x + side, y + side),
            )
            if crop.std() > 20:
                break
    crops /= 255
    mirrored = random.random(count) < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    return crops, names[choice]


# --- how to show it: every parameter is an array with one entry per image ---------------------


def _compose(random: np.random.Generator, masks: np.ndarray, image_size: int) -> Tensor:
    """Warps masks (B, 64, 64) and paints them on a background: float32 (B, S, S) in [0, 1]."""
    count = len(masks)
    ink = torch.from_numpy(masks).float().div_(255).unsqueeze(1)
    # Stroke weight: half of the images printed bolder, a fifth finer, within 2 pixels of 64.
    for shares in ((0.5, 0.2), (0.25, 0.0)):
        draw, amount = random.random(count), random.random(count)
        bolder = _column(amount * (draw < shares[0]))
        finer = _column(0.5 * amount * (draw > 1 - shares[1]))
        wide = F.max_pool2d(ink, 3, stride=1, padding=1)
        thin = -F.max_pool2d(-ink, 3, stride=1, padding=1)
        ink = ink + bolder * (wide - ink) + finer * (thin - ink)
    # Drawn at twice the size, then averaged.
    grid = F.affine_grid(
        _draw_warps(random, count), [count, 1, 2 * image_size, 2 * image_size], False
    )
    ink = F.avg_pool2d(F.grid_sample(ink, grid, align_corners=False), 2)

    level = random.uniform(0, 0.4, count) * (random.random(count) < 0.6)
    slope = random.uniform(-0.4, 0.4, count) * (random.random(count) < 0.4)
    angle = random.uniform(0, 2 * np.pi, count)
    ramp = torch.linspace(-0.5, 0.5, image_size)
    paper = (
        _column(level)
        + _column(slope * np.cos(angle)) * ramp.view(1, 1, 1, -1)
        + _column(slope * np.sin(angle)) * ramp.view(1, 1, -1, 1)
    ).clamp_(0, 1)
    colour = _column(level + random.uniform(0.6, 1, count) * (1 - level))
    image = paper + ink * (colour - paper)
    dark_on_light = _column(random.random(count) < 0.3)
    return (dark_on_light + (1 - 2 * dark_on_light) * image).squeeze(1)


def _draw_warps(random: np.random.Generator, count: int) -> Tensor:
    """Draws affine maps (count, 2, 3) from places in the image to places in the mask."""
    size = np.where(
        random.random(count) < 0.85,
        random.uniform(0.65, 0.95, count),
        random.uniform(0.45, 0.65, count),
    )
    squeeze = random.uniform(0.7, 1, (count, 2))
    squeeze[np.arange(count), random.integers(2, size=count)] = 1
    turn = np.deg2rad(np.clip(random.normal(0, 8, count), -25, 25))
    slant = np.clip(random.normal(0, 0.15, count), -0.4, 0.4)
    shift = random.uniform(-1, 1, (count, 2)) * (1 - size)[:, None]

    cos, sin = np.cos(turn), np.sin(turn)
    forward = np.array([[cos, slant * cos - sin], [sin, slant * sin + cos]]).transpose(2, 0, 1)
    forward = forward * (squeeze * size[:, None] * _ATLAS_SIDE / _ATLAS_FILL)[:, None, :]
    inverse = np.linalg.inv(forward)
    offset = -inverse @ shift[:, :, None]
    return torch.from_numpy(np.concatenate([inverse, offset], axis=2)).float()


def _degrade(random: np.random.Generator, images: Tensor) -> Tensor:
    """Lowers the resolution of 36 % of the images, blurs half of the rest, adds noise to half."""
    count, side = images.shape[:2]
    images = images.unsqueeze(1)
    resolution = random.choice([8, 12, 16, side], size=count, p=[0.20, 0.08, 0.08, 0.64])
    for coarse in (8, 12, 16):
        chosen = torch.from_numpy(resolution == coarse)
        small = F.adaptive_avg_pool2d(images[chosen], coarse)
        images[chosen] = F.interpolate(small, (side, side), mode='bilinear', align_corners=False)

    blurred = (random.random(count) < 0.5) & (resolution == side)
    sigma = np.where(blurred, random.uniform(0.3, 1.2, count), 1e-3)  # pixels
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma[:, None]) ** 2)
    taps /= taps.sum(axis=1, keepdims=True)
    for axis, padding in ((2, (0, 0, 3, 3)), (3, (3, 3, 0, 0))):
        padded = F.pad(images, padding, mode='replicate')
        images = torch.zeros_like(images)
        for k in range(7):
            images += _column(taps[:, k]) * padded.narrow(axis, k, side)

    strength = random.uniform(0, 0.08, count) * (random.random(count) < 0.5)
    noise = torch.from_numpy(random.standard_normal((count, 1, side, side), dtype=np.float32))
    return (images + _column(strength) * noise).squeeze(1)


def _column(values: np.ndarray) -> Tensor:
    """One number per image as a float32 tensor (B, 1, 1, 1)."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).view(-1, 1, 1, 1)
