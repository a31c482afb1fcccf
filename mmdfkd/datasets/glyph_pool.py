# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The 'web pool' of the embedded benchmark: printed characters, symbols and photograph crops.

Like images collected from the web for a digit classifier, it differs from the original data in
style (fonts for handwriting, any polarity, blur, noise) and in content (letters, symbols and
photographs are classes nobody asked for).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import features

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError, files

from .glyphs import GENERATOR_VERSION, generate
from .image_pool import ImagePool, is_pool, remove_stale, write_pool


@DATASETS.register_module()
class GlyphPool(ImagePool):
    """Unlabelled grey images made once from a seed and cached on disk as an :class:`ImagePool`.

    About 35 % digits, 35 % letters, 20 % symbols and 10 % photograph crops. What each image
    shows stays aside: ``extra('kinds')`` (0 digit, 1 letter, 2 symbol, 3 photograph) and
    ``extra('chars')`` (the character, the symbol's glyph name, or the photograph's file name).
    The cache is checked by sha256 on every opening and made anew where it is damaged. The same
    arguments, versions of the drawing libraries and kind of processor give the same bytes.

    Args:
        num_images: Number of images.
        image_size: Side of the images in pixels, at least 8.
        seed: Seed of all that is drawn.
        cache_dir: Folder of the caches; by default ``$MMDFKD_CACHE_DIR`` or ``~/.cache/mmdfkd``.
        ratio: Share of the pool to use, in (0, 1].
        ratio_seed: Seed of that subset.
        regenerate: Make the pool anew even where a sound cache exists.

    Raises:
        UsageError: An argument is out of range, or the cache folder cannot be written.
    """

    def __init__(
        self,
        num_images: int = 12000,
        image_size: int = 32,
        seed: int = 0,
        cache_dir: str | os.PathLike | None = None,
        ratio: float = 1.0,
        ratio_seed: int = 0,
        regenerate: bool = False,
    ) -> None:
        if num_images < 1 or image_size < 8 or seed < 0:
            raise UsageError(
                f'GlyphPool got num_images={num_images}, image_size={image_size}, seed={seed}; '
                'give at least 1 image of at least 8 pixels and a seed of 0 or more.'
            )
        folder = Path(cache_dir).expanduser() if cache_dir else files.cache_dir()
        recipe = _recipe(num_images, image_size, seed)
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
        root = folder / f'glyphs-{num_images}x{image_size}-seed{seed}-{key}'
        exists = root.exists()
        if regenerate or not exists or not _is_sound(root):
            _require_writable(root.parent)
            if exists:  # asked before: what appeared since is another process's sound pool
                _discard(root)
            images, kinds, chars = generate(num_images, image_size, seed)
            extras = {'kinds': kinds, 'chars': chars}
            try:
                write_pool(root, images, 'glyphs', extras, {'created_by': 'GlyphPool', **recipe})
            except UsageError:
                if not is_pool(root):  # where it is one, another process was first: use its pool
                    raise
        remove_stale(root)
        super().__init__(root, ratio, ratio_seed)


def _recipe(num_images: int, image_size: int, seed: int) -> dict[str, Any]:
    """Returns all that decides the pixels, the versions of the drawing libraries included."""
    import matplotlib

    return {
        'generator_version': GENERATOR_VERSION,
        'num_images': num_images,
        'image_size': image_size,
        'seed': seed,
        'versions': {
            'matplotlib': matplotlib.__version__,
            'pillow': PIL.__version__,
            'freetype': features.version('freetype2'),
            'torch': torch.__version__,
        },
    }


def _is_sound(root: Path) -> bool:
    """Tells whether a cache is intact; warns where it is not."""
    try:
        ImagePool(root).verify()
    except UsageError as error:
        warnings.warn(f'The cached glyph pool is damaged and is made anew. {error}', stacklevel=3)
        return False
    return True


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = '' if os.access(folder, os.W_OK) else 'no permission'
    except OSError as error:
        reason = str(error)
    if reason:
        raise UsageError(
            f'The cache folder {folder} of GlyphPool cannot be written ({reason}). Set the '
            'environment variable MMDFKD_CACHE_DIR, or cache_dir, to a folder that can.'
        )


def _discard(root: Path) -> None:
    """Moves a cache out of the way in one step, then removes it."""
    doomed = root.parent / f'.{root.name}.tmp-{uuid.uuid4().hex}'
    try:
        os.rename(root, doomed)
    except OSError:  # nothing there, or nothing that can be moved: then writing will say so
        return
    shutil.rmtree(doomed, ignore_errors=True)
