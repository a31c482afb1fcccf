# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Some rows of an array, read when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np


class RowView:
    """Stands for ``array[rows]`` without its copy, which for a part of a large pool is as large.

    Args:
        array: An array, most likely memory-mapped, (N, ...).
        rows: Positions in [0, N), int64 (M,).
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array = array
        self.rows = rows
        self.shape = (len(rows), *array.shape[1:])
        self.ndim = array.ndim
        self.dtype = array.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads ``array[rows][key]``; a tuple of keys may reach into the rows as well."""
        first, *others = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis or first is None:
            return np.asarray(self)[key]
        return self.array[(self.rows[first], *others)]

    def take(self, positions: np.ndarray, axis: int = 0) -> np.ndarray:
        """Reads rows by their positions (B,); ``axis`` is 0."""
        return self.array.take(self.rows[positions], axis=axis)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array.take(self.rows, axis=0).astype(dtype or self.dtype, copy=False)
