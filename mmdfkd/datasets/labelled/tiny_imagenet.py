# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Tiny-ImageNet-200, from the official zip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .archive import File
from .base import LabelledSet
from .download import Download
from .reader import Part

_WNID = re.compile(r'n\d{8}')
_NOTES = ('wnids.txt', 'words.txt', 'val_annotations.txt')


@DATASETS.register_module()
class TinyImageNet(LabelledSet):
    """Tiny-ImageNet-200: 100,000 images to train and 10,000 to validate, 64 x 64, 200 classes.

    Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip. The labels of its test
    images were never published, so 'test' means its validation set, as in the papers. Classes
    are in the order of their WordNet numbers, as torchvision's ImageFolder sorts them, and
    named by ``words.txt``.

    Args:
        data_root: ``tiny-imagenet-200.zip`` or its content as a folder or tar, as published or
            with the validation images moved into folders by class; or a folder with one of
            these.
        split: 'train', 'val' or 'test', the last two being the same.
        image_size: As in :class:`LabelledSet`, like the arguments below.
        grey: Grey images.
        download: Fetch the set where it is missing.
    """

    name = 'tiny-imagenet'
    home = 'http://cs231n.stanford.edu/tiny-imagenet-200.zip'
    splits = {'train': ('train',), 'val': ('val',), 'test': ('val',)}
    counts = {'train': 100000, 'val': 10000, 'test': 10000}
    candidates = ('tiny-imagenet-200', 'tiny-imagenet-200.zip')

    def read(self, file: File) -> Part | None:
        """Keeps the lists of classes and of validation labels."""
        name = PurePosixPath(file.name).name
        if name in _NOTES:
            text = file.read().decode()
            self.notes[name] = [line.split('\t') for line in text.splitlines() if line]
        return None

    def label(self, file: File) -> str | None:
        """Returns the WordNet number where a folder tells it, else '' to be looked up."""
        folders = file.name.split('/')[:-1]
        (folder,) = self.splits[self.split]
        if folder not in folders:
            return None
        inside = folders[folders.index(folder) + 1 :]
        return next((name for name in inside if _WNID.fullmatch(name)), '')

    def resolve(self, names: list[str], labels: Sequence[int | str | None]) -> list[int]:
        """Looks validation images up in the list, then names and numbers the classes."""
        listed = {row[0]: row[1] for row in self.notes.get('val_annotations.txt', [])}
        wnids = []
        for name, label in zip(names, labels, strict=True):
            wnid = label or listed.get(PurePosixPath(name).name)
            if wnid is None:
                raise UsageError(
                    f'{self.source}: {name} has no class: it lies in no folder named by one, nor '
                    'does a val_annotations.txt list it. Download or unpack the set again.'
                )
            wnids.append(wnid)
        order = sorted(row[0] for row in self.notes.get('wnids.txt', [])) or sorted(set(wnids))
        words = {row[0]: row[1].split(',')[0] for row in self.notes.get('words.txt', [])}
        self.classes = order
        numbers = super().resolve(names, wnids)
        self.classes = [words.get(wnid, wnid) for wnid in order]
        return numbers

    def downloads(self) -> list[Download]:
        """The archive of all splits."""
        return [
            Download(
                'http://cs231n.stanford.edu/tiny-imagenet-200.zip',
                'tiny-imagenet-200.zip',
                '90528d7ca1a48142e341f4ef8d21d0de',
            )
        ]
