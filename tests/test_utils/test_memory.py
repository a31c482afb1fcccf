# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import ctypes
import platform
import subprocess
import sys

import pytest
from mmengine.device import utils

from mmdfkd.engine import DistillRunner
from mmdfkd.engine.runner import distill_runner
from mmdfkd.utils.memory import keep_freed_memory

FAULTS = """
import resource, torch
from mmdfkd.utils.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(64 * 2**20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_the_same_pages_serve_again():
    """Twenty times 64 MiB in pages of 4 KiB or 2 MiB: all of them each time, or none."""
    faults = {
        keep: int(subprocess.check_output([sys.executable, '-c', FAULTS.format(keep=keep)]))
        for keep in (False, True)
    }
    assert faults[False] > 20 * 16  # of 32 huge ones
    assert faults[True] < faults[False] / 100


def test_another_c_library(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, 'CDLL', missing)
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    ('config', 'device', 'kept'),
    [
        (dict(keep_memory=True), 'cpu', True),
        (dict(keep_memory=False), 'cpu', False),
        (dict(), 'cpu', False),
        (dict(keep_memory=True), 'cuda', False),
    ],
)
def test_runs_on_a_cpu_keep_it_where_the_config_says_so(monkeypatch, config, device, kept):
    calls = []
    monkeypatch.setattr(utils, 'DEVICE', device)
    monkeypatch.setattr('mmdfkd.utils.device.keep_freed_memory', lambda: calls.append(True))
    monkeypatch.setattr(distill_runner.Runner, 'setup_env', lambda self, config: None)
    runner = DistillRunner.__new__(DistillRunner)
    runner._launcher = 'none'
    runner.setup_env(config)
    assert bool(calls) == kept
