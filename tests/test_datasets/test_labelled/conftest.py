# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Tiny archives in the formats that publishers chose, and a cache that no one else sees."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder where packed sets land."""
    monkeypatch.setenv('MMDFKD_CACHE_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'datasets'


@pytest.fixture
def real(data_root):
    """Path of a real archive."""

    def find(name):
        if not (data_root / name).exists():
            pytest.skip(f'no file {data_root / name}')
        return data_root / name

    return find


@pytest.fixture
def noise():
    """Distinct uint8 images (N, side, side, channels)."""

    def make(count, side=32, channels=3):
        shape = (count, side, side, channels)
        return np.random.RandomState(count).randint(0, 256, shape).astype(np.uint8)

    return make


@pytest.fixture
def encode():
    """An image file of pixels (H, W, C), or of a PIL image."""

    def save(image, format='PNG', **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        stream = io.BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()

    return save


@pytest.fixture
def write_files(tmp_path):
    """Write files given by name as a folder, tar or zip, according to the suffix of ``path``."""

    def write(path, files):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.zip':
            with zipfile.ZipFile(path, 'w') as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        elif '.tar' in path.name:
            compression = path.suffix[1:] if path.suffix != '.tar' else ''
            with tarfile.open(path, f'w:{compression}') as archive:
                for name, data in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        else:
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        return path

    return write
