# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Packing images from anywhere into pools, and choosing among what was packed."""

from .decode import Recipe, UnreadableImage, decode_image
from .dedup import Duplicates, find_duplicates, open_images, without_duplicates
from .keep import cap_per_class, write_keep
from .mnistm import blend_digits
from .packer import PackReport, pack, read_names
from .sources import CutArchive, Entry, Source

__all__ = [
    'CutArchive',
    'Duplicates',
    'Entry',
    'PackReport',
    'Recipe',
    'Source',
    'UnreadableImage',
    'blend_digits',
    'cap_per_class',
    'decode_image',
    'find_duplicates',
    'open_images',
    'pack',
    'read_names',
    'without_duplicates',
    'write_keep',
]
