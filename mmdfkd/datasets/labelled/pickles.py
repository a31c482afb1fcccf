# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Pickled image batches, read as data: a pickle can call nothing but what is written here."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from mmdfkd.utils import UsageError


def load_batch(data: bytes, name: str) -> dict[str, Any]:
    """Reads a pickled dictionary of numpy arrays, numbers, strings and lists of these.

    Args:
        data: Bytes of the pickle, from Python 2 or 3.
        name: Name of the file, for messages.

    Returns:
        The dictionary with its keys as strings; its arrays are read-only.

    Raises:
        UsageError: It is damaged, or asks for anything else to be built or called.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding='bytes').load()
    except UsageError as error:
        raise UsageError(f'{name} {error}') from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UsageError(
            f'{name} is no readable pickle ({type(error).__name__}: {error}). Download or copy '
            'it again.'
        ) from error
    if not isinstance(batch, dict):
        raise UsageError(f'{name} holds a {type(batch).__name__}, expected a dictionary.')
    return {
        key.decode(errors='replace') if isinstance(key, bytes) else str(key): (
            value.content if isinstance(value, _Array) else value
        )
        for key, value in batch.items()
    }


# Even numpy's own constructors are not safe: np.ndarray((1,), 'O', raw_bytes) takes bytes for
# pointers. So those of a pickle are rebuilt here from nothing but simple types and bytes.


class _Dtype:
    """Stands in for np.dtype: numbers and byte strings only."""

    def __init__(self, code: bytes | str, *unused: Any) -> None:
        dtype = np.dtype(code.decode() if isinstance(code, bytes) else str(code))
        if dtype.kind not in 'biufS' or dtype.names is not None:
            raise ValueError(f'arrays of {dtype} are not read')
        self.dtype = dtype

    def __setstate__(self, state: tuple) -> None:
        order: Any = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)

    def read(self, data: Any, shape: Any, order: str) -> np.ndarray:
        return np.frombuffer(data, self.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


class _Array:
    """Stands in for np.ndarray."""

    content: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.content = _Dtype.read(dtype, data, shape, 'F' if is_fortran else 'C')


def _reconstruct(*unused: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: str) -> np.ndarray:
    return _Dtype.read(dtype, data, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != 'latin1':
        raise ValueError(f'unexpected encoding {encoding}')
    return text.encode('latin1')


class _ArraysOnly(pickle.Unpickler):
    known = {
        'numpy.ndarray': None,  # only ever an argument of the next
        'numpy.core.multiarray._reconstruct': _reconstruct,
        'numpy._core.multiarray._reconstruct': _reconstruct,
        'numpy.core.numeric._frombuffer': _frombuffer,
        'numpy._core.numeric._frombuffer': _frombuffer,
        'numpy.dtype': _Dtype,
        '_codecs.encode': _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        path = f'{module}.{name}'
        if path not in self.known:
            raise UsageError(
                f'is a pickle that asks for {path}, which no image set needs; it was not run. Do '
                'not use this file.'
            )
        return self.known[path]
