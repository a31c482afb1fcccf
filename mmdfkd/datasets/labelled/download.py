# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Fetching a publisher's files, only when asked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from mmdfkd.utils import UsageError
from mmdfkd.utils.files import one_at_a_time


class Download(NamedTuple):
    """A file that a publisher offers, and its md5 where that is known."""

    url: str
    filename: str
    md5: str | None = None


def fetch(file: Download, folder: Path) -> None:
    """Downloads a file into a folder; it appears there whole or not at all.

    Raises:
        UsageError: The server or the disk failed, or the checksum differs.
    """
    from torchvision.datasets.utils import download_url

    target = folder / file.filename
    partial = folder / f'.{file.filename}.part'
    if target.exists():
        return
    try:
        with one_at_a_time(target):  # each process of a run asks for it
            if target.exists():
                return
            partial.unlink(missing_ok=True)
            download_url(file.url, folder, partial.name, file.md5)
            os.replace(partial, target)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f'Downloading {file.url} to {target} failed: {error}. Try again, or fetch it by hand.'
        ) from error


def require_md5(file: Path | bytes, expected: str, name: str = '') -> None:
    """Compares the md5 of a file, or of its bytes, with the one its publisher gives.

    Raises:
        UsageError: They differ.
    """
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(file, Path):
        name = name or str(file)
        with open(file, 'rb') as stream:
            while block := stream.read(2**20):
                digest.update(block)
    else:
        digest.update(file)
    if digest.hexdigest() != expected:
        raise UsageError(
            f'{name} has md5 {digest.hexdigest()}, but its publisher gives {expected}: it is '
            'truncated, damaged or another file. Download or copy it again.'
        )
