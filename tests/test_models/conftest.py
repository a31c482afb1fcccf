# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Fixtures shared by the tests of networks, losses and algorithms."""

from pathlib import Path

import numpy as np
import pytest
import torch

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='session')
def kd3_golden():
    """Numeric arrays of the published KD³ code as tensors, see tests/data/README.md."""
    with np.load(DATA / 'kd3_golden.npz') as arrays:
        return {
            name: torch.from_numpy(arrays[name])
            for name in arrays
            if arrays[name].dtype.kind != 'U'
        }
