# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A few generated pictures, as a folder and in every kind of archive."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

CLASSES = ('ant', 'bee', 'bee-eater')


def encode(pixels, format='PNG', **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def smooth(random, side=24, details=4):
    """A picture of low frequencies, as photographs are."""
    small = random.integers(0, 256, (details, details, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def write_tar(path, files, mode='w'):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope='session')
def pictures():
    """24 images by name, in no order."""
    random = np.random.default_rng(0)
    names = [f'{kind}/images/{k}.png' for k in range(8) for kind in CLASSES]
    random.shuffle(names)
    return {str(name): encode(smooth(random)) for name in names}


@pytest.fixture
def folder(tmp_path, pictures):
    return write_folder(tmp_path / 'pictures', pictures)
