# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Files that hold many images as arrays: .npz, pickles, and SVHN's .mat.

"A Downsampled Variant of ImageNet as an Alternative to the CIFAR datasets", Chrabaszcz, Loshchilov
and Hutter 2017, https://arxiv.org/abs/1707.08819: ``data`` uint8 (N, 3 S²), channel-first, and
``labels`` from 1 to 1000. CIFAR's own batches and the pickles of KD³ have the same form; the
cropped digits of SVHN are MATLAB arrays.
"""

from __future__ import annotations

import lzma
import math
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np

from mmdfkd.utils import UsageError

_ROWS = 4096  # read at a time
_BATCH = re.compile(
    r'(^|/)((train_)?data_batch(_[0-9]+)?(\.npz|\.pkl|\.pickle)?|train_32x32\.mat)$'
)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    RuntimeError,  # an encrypted zip, or one of an unknown method
    ValueError,
    EOFError,
    OSError,
)
_LABELS = ('labels', 'target', 'targets', 'fine_labels')


class Row(NamedTuple):
    """One image of a batch.

    Attributes:
        pixels: uint8 (S, S, 3).
        label: Its class as it is written there, or None.
        share: How much of the batch has been read with it, in (0, 1].
    """

    pixels: np.ndarray
    label: str | None
    share: float


def is_batch(name: str) -> bool:
    """Tells by the name whether a file in a folder or archive is a batch of training images."""
    return _BATCH.search(name) is not None


def read_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yields the images of a batch in their order; of an .npz few are in memory at a time.

    Args:
        file: The opened batch; seekable where it is an .npz.
        name: Its name, for messages.

    Raises:
        UsageError: It is damaged or has another form.
    """
    readers = {'.npz': _read_npz, '.mat': _read_mat}
    read = readers.get(PurePosixPath(name).suffix, _read_pickle)
    try:
        yield from read(file, name)
    except UsageError:
        raise
    except _DAMAGE as error:
        raise UsageError(
            f'{name} cannot be read to its end ({type(error).__name__}: {error}). Download or copy '
            'it again.'
        ) from error


def _read_pickle(file: IO[bytes], name: str) -> Iterator[Row]:
    from ..labelled.pickles import load_batch

    batch = load_batch(file.read(), name)
    data, labels = batch.get('data'), _labels_of(batch)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise _other_form(name, f'the keys {sorted(batch)}')
    yield from _rows([data], data.shape, labels, name)


def _read_mat(file: IO[bytes], name: str) -> Iterator[Row]:
    from ..labelled.svhn import parse_mat

    part = parse_mat(file.read(), name)
    for count, (pixels, label) in enumerate(zip(part.images, part.labels, strict=True), start=1):
        yield Row(np.ascontiguousarray(pixels), str(label), count / len(part.labels))


def _read_npz(file: IO[bytes], name: str) -> Iterator[Row]:
    # numpy would hold the whole array, 400 MB to 1.6 GB: read it as the stream it is.
    with zipfile.ZipFile(file) as members:
        arrays = {PurePosixPath(member).stem: member for member in members.namelist()}
        if 'data' not in arrays:
            raise _other_form(name, f'the arrays {sorted(arrays)}')
        labels = {key: _load(members, arrays[key]) for key in _LABELS if key in arrays}
        with members.open(arrays['data']) as stream:
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if fortran or dtype != np.uint8:
                raise _other_form(name, f'{dtype} data of shape {shape}')
            yield from _rows(_chunks(stream, shape), shape, _labels_of(labels), name)


def _load(members: zipfile.ZipFile, member: str) -> np.ndarray:
    with members.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _chunks(stream: IO[bytes], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    width = math.prod(shape[1:])
    for first in range(0, shape[0], _ROWS):
        wanted = min(_ROWS, shape[0] - first) * width
        data = stream.read(wanted)
        if len(data) != wanted:
            raise EOFError('its data end early')
        yield np.frombuffer(data, np.uint8).reshape(-1, width)


def _rows(
    chunks: Iterable[np.ndarray],
    shape: tuple[int, ...],
    labels: Sequence[int] | np.ndarray | None,
    name: str,
) -> Iterator[Row]:
    side = math.isqrt(shape[1] // 3) if len(shape) == 2 else 0
    if not side or shape[1] != 3 * side * side:
        raise _other_form(name, f'data of shape {shape}')
    if labels is not None and len(labels) != shape[0]:
        raise _other_form(name, f'{shape[0]} images and {len(labels)} labels')
    count = 0
    for chunk in chunks:
        images = np.ascontiguousarray(chunk.reshape(-1, 3, side, side).transpose(0, 2, 3, 1))
        for pixels in images:
            label = None if labels is None else str(int(labels[count]))
            count += 1
            yield Row(pixels, label, count / shape[0])


def _labels_of(batch: dict[str, Any]) -> Any:
    return next((batch[key] for key in _LABELS if key in batch), None)


def _other_form(name: str, found: str) -> UsageError:
    return UsageError(
        f"{name} has {found}; a batch of down-sampled images holds 'data' uint8 (N, 3 S²) and "
        "'labels' (N,). Give an official batch, or pack the original images."
    )
