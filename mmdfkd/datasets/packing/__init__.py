# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Packing images from anywhere into pools."""

from .decode import Recipe, UnreadableImage, decode_image
from .packer import PackReport, pack, read_names
from .sources import CutArchive, Entry, Source

__all__ = [
    'CutArchive',
    'Entry',
    'PackReport',
    'Recipe',
    'Source',
    'UnreadableImage',
    'decode_image',
    'pack',
    'read_names',
]
