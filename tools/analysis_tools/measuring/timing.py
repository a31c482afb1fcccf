# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Clocks, pairs of actions timed in turn, and tables of what came of it."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook


class Clock:
    """Seconds, read when the device has finished what it was given."""

    def __init__(self, device: str) -> None:
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
        alone = device == 'cpu' and torch.get_num_threads() == 1
        self.read = time.process_time if alone else time.perf_counter
        self.name = 'processor time' if alone else 'wall clock'

    def __call__(self) -> float:
        """Now."""
        self.synchronize()
        return self.read()

    def time(self, action: Callable[[], Any]) -> float:
        """Seconds that ``action`` takes."""
        start = self()
        action()
        return self() - start


def compare(clock: Clock, pairs: int, **actions: Callable[[], Any]) -> dict[str, list[float]]:
    """Time actions in turn, ``pairs`` times each, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(pairs + 1):
        for name, action in actions.items():
            times[name].append(clock.time(action))
    return {name: values[1:] for name, values in times.items()}


def median(values: list[float]) -> float:
    """The middle one."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def ratio(ours: list[float], bare: list[float]) -> float:
    """Median of paired ratios."""
    return median(_ratios(ours, bare))


def error(ours: list[float], bare: list[float]) -> float:
    """Standard error of :func:`ratio`, from the quartiles of the paired ratios.

    Of normally distributed numbers the quartiles are 1.35 standard deviations apart, and the median
    of n has a standard error of 1.25 standard deviations over the root of n.
    """
    quarters = torch.tensor([0.25, 0.75], dtype=torch.float64)
    low, high = torch.tensor(_ratios(ours, bare), dtype=torch.float64).quantile(quarters).tolist()
    return 1.25 * (high - low) / 1.35 / len(ours) ** 0.5


def _ratios(ours: list[float], bare: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, bare, strict=True)]


class InterleaveHook(Hook):
    """Stop a Runner's clock after every block of iterations and let its rivals run a block.

    Of the Runner everything is on its clock: loader, preprocessor, every hook, the log lines.

    Args:
        clock: What is read.
        block: Iterations in a block. None makes it a whole epoch, from the selection before it on.
        rivals: What runs in turn with the Runner, by name.
        prepare: Called before the rivals, off the clock.
    """

    priority = 'LOWEST'

    def __init__(
        self,
        clock: Clock,
        block: int | None,
        rivals: dict[str, Callable[[], None]],
        prepare: Callable[[], None],
    ) -> None:
        self.clock = clock
        self.block = block
        self.rivals = rivals
        self.prepare = prepare
        self.times: dict[str, list[float]] = {name: [] for name in ('runner', *rivals)}

    def before_train(self, runner: Any) -> None:
        """Start."""
        self.started = self.clock()

    def before_train_epoch(self, runner: Any) -> None:
        """Start blocks of iterations when the epoch is ready."""
        if self.block:
            self.started = self.clock()

    def after_train_iter(self, runner: Any, batch_idx: int, **ignored: Any) -> None:
        """A block may be over."""
        if self.block and (batch_idx + 1) % self.block == 0:
            self._take_turns()

    def after_train_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """An epoch is over."""
        if not self.block:
            self._take_turns()

    def _take_turns(self) -> None:
        """Let the others run, then go on."""
        self.times['runner'].append(self.clock() - self.started)
        self.prepare()
        for name, rival in self.rivals.items():
            self.times[name].append(self.clock.time(rival))
        self.started = self.clock()


# Report ---------------------------------------------------------------------------------------


def machine(args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """What the numbers were measured on, and with which command."""
    device = torch.cuda.get_device_name() if args.device == 'cuda' else processor()
    allocator = [f'{k}={v}' for k, v in os.environ.items() if k.startswith(('MALLOC_', 'LD_PRE'))]
    return dict(
        command=shlex.join([*sorted(allocator), 'python', *sys.argv]),
        device=device,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        clock=clock.name,
        load=' '.join(f'{load:.1f}' for load in getattr(os, 'getloadavg', tuple)()),
    )


def processor() -> str:
    """The CPU's name where the system tells it."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0] if names else platform.processor()}, {os.cpu_count()} cores'


def print_table(title: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows of equal keys below their keys, each as soon as it is there; return them."""
    printed: list[dict[str, Any]] = []
    widths: list[int] = []
    for row in rows:
        texts = [cell(value) for value in row.values()]
        if not printed:
            widths = [max(len(key), len(text), 9) for key, text in zip(row, texts, strict=True)]
            print(f'\n{title}')
            print(_line(row, widths))
        print(_line(texts, widths), flush=True)
        printed.append(row)
    return printed


def _line(texts: Iterable[str], widths: list[int]) -> str:
    return '  '.join(f'{text:>{width}}' for text, width in zip(texts, widths, strict=True))


def cell(value: Any) -> str:
    """Numbers with as many digits as they mean something with."""
    if not isinstance(value, float):
        return str(value)
    return f'{value:.3f}' if value < 10 else f'{value:.1f}'
