# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One thread, one seed, and skips for what this machine does not have."""

import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # also for the processes that tests start

import numpy as np
import pytest
import torch

DATA_ROOT = Path(__file__).parents[1] / 'data'

# Sums must not depend on the number of cores; tiny networks are faster on one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Seed every test alike, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def data_root():
    """Folder of real datasets, for tests marked ``realdata``."""
    return DATA_ROOT


def pytest_collection_modifyitems(items):
    no_gpu = pytest.mark.skip(reason='no GPU')
    no_data = pytest.mark.skip(reason=f'no folder {DATA_ROOT}')
    for item in items:
        if 'gpu' in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if 'realdata' in item.keywords and not DATA_ROOT.is_dir():
            item.add_marker(no_data)
