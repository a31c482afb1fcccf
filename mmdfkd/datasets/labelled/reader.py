# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One thread reads files in order, the others decode them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .archive import is_image, reported, walk
from .decode import decode_image, fit_array

if TYPE_CHECKING:
    from .base import LabelledSet

_CHUNK = 128  # image files that one thread decodes in a row


class Part(NamedTuple):
    """Images that are read together.

    Attributes:
        names: Their n names; the finished set is sorted by them.
        images: Their files, or their pixels as uint8 (n, H, W, C).
        labels: Their n classes, by number or by name.
    """

    names: list[str]
    images: list[bytes] | np.ndarray
    labels: Sequence[int | str]


def read_images(dataset: LabelledSet) -> Iterator[tuple[Part, list[np.ndarray]]]:
    """Yields all images of a set, a part at a time, decoded a few parts ahead.

    Raises:
        UsageError: The archive or an image is damaged.
    """
    workers = min(16, os.cpu_count() or 1)
    waiting: deque[tuple[Part, Future]] = deque()
    with ThreadPoolExecutor(workers) as threads, reported(dataset.source):
        try:
            for part in _parts(dataset):
                waiting.append((part, threads.submit(_decode, dataset, part)))
                while len(waiting) > 2 * workers or (waiting and waiting[0][1].done()):
                    first, result = waiting.popleft()
                    yield first, result.result()
            for first, result in waiting:
                yield first, result.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _parts(dataset: LabelledSet) -> Iterator[Part]:
    names: list[str] = []
    images: list[bytes] = []
    labels: list[str] = []
    for file in walk(dataset.source):
        if not is_image(file.name):
            part = dataset.read(file)
            if part is not None:
                yield part
        elif (label := dataset.label(file)) is not None:
            names.append(file.name)
            images.append(file.read())
            labels.append(label)
            if len(names) == _CHUNK:
                yield Part(names, images, labels)
                names, images, labels = [], [], []
    if names:
        yield Part(names, images, labels)


def _decode(dataset: LabelledSet, part: Part) -> list[np.ndarray]:
    if isinstance(part.images, np.ndarray):
        return [fit_array(image, dataset.image_size, dataset.grey) for image in part.images]
    return [
        decode_image(data, f'{dataset.source}: {name}', dataset.image_size, dataset.grey)
        for name, data in zip(part.names, part.images, strict=True)
    ]
