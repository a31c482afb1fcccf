# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""One thread, one seed, and skips for what this machine does not have."""

import contextlib
import io
import os
import runpy
import sys
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault('OMP_NUM_THREADS', '1')  # also for the processes that tests start

import numpy as np
import pytest
import torch
from two_processes import run_in_two

ROOT = Path(__file__).parents[1]
# Real images are not part of the repository: see the marker `realdata`.
DATA_ROOT = Path(os.environ.get('MMDFKD_REALDATA') or ROOT.parent / 'shared' / 'data')

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


@pytest.fixture(scope='session')
def run_tool():
    """Run ``python tools/SCRIPT ARGS`` inside this process; return what it prints."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    def run(script, *args):
        # As in a new process: mmengine would hand out the loggers of a run of the same second.
        for kind in (DefaultScope, MessageHub, MMLogger, Visualizer):
            kind._instance_dict.clear()
        path = ROOT / 'tools' / script
        argv, beside = [script, *map(str, args)], [str(path.parent), *sys.path]
        printed = io.StringIO()
        with mock.patch.object(sys, 'argv', argv), mock.patch.object(sys, 'path', beside):
            with mock.patch.dict(os.environ), contextlib.redirect_stdout(printed):
                runpy.run_path(str(path), run_name='__main__')
        return printed.getvalue()

    return run


@pytest.fixture(scope='session')
def in_two_processes():
    """Run ``function(rank, *args)`` in two processes of a group; list what both return."""
    return run_in_two


@pytest.fixture(scope='session')
def ends():
    """Whether every process of a group ends within a number of seconds."""

    def ends(group, seconds=5):
        deadline = time.monotonic() + seconds
        while running(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not running(group)

    return ends


def running(group):
    """Whether a process of that group runs; one that has ended may wait long for process 1."""
    if not Path('/proc/self/stat').exists():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True
    for path in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its_group = path.read_text().rpartition(')')[2].split()[:3]
            if int(its_group) == group and state not in 'ZX':
                return True
    return False


def pytest_collection_modifyitems(items):
    no_gpu = pytest.mark.skip(reason='no GPU')
    no_data = pytest.mark.skip(reason=f'no folder {DATA_ROOT}; set MMDFKD_REALDATA to one')
    for item in items:
        if 'in_two_processes' in item.fixturenames:
            item.add_marker('dist')
        if 'gpu' in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if 'realdata' in item.keywords and not DATA_ROOT.is_dir():
            item.add_marker(no_data)
