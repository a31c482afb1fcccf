# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Where the time of a training iteration goes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from types import MethodType
from typing import Any

from mmengine.hooks import Hook

from mmdfkd.engine.runner.distill_runner import acts

from .runners import build_runner
from .timing import Clock


class Stopwatch:
    """Adds up the time of named parts; that of a part inside another counts only there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: Counter[str] = Counter()
        self.stack: list[str] = []
        self.since = 0.0

    def enter(self, name: str) -> None:
        """A part begins."""
        self._book()
        self.stack.append(name)

    def leave(self) -> None:
        """It ends."""
        self._book()
        self.stack.pop()

    def _book(self) -> None:
        now = self.clock()
        if self.stack:
            self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Time each call of a method of one object."""
        original: Callable = getattr(owner, method)

        def timed(owner: Any, *args: Any, **kwargs: Any) -> Any:
            self.enter(name)
            try:
                return original(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, method, MethodType(timed, owner))


class _Edge(Hook):
    """Calls an action where the iterations of an epoch begin, or where they end."""

    def __init__(self, stage: str, action: Callable[[], None]) -> None:
        setattr(self, stage, lambda *ignored, **others: action())


def measure_profile(
    args: argparse.Namespace, clock: Clock, folder: str, method: str, batch: int
) -> list[dict[str, Any]]:
    """Time per iteration of each part of the Runner's loop, with a little for taking it."""
    runner = build_runner(args, folder, method, batch, blocks=args.pairs + 1)
    model, loop, watch = runner.model, runner.train_loop, Stopwatch(clock)
    model.selector = None  # the whole pool
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    for hook in runner.hooks:
        for stage in ('before_train_iter', 'after_train_iter'):
            if acts(hook, stage):  # the Runner calls no other
                watch.watch(hook, stage, f'hook {type(hook).__name__}')
    watch.watch(model, 'train_step', 'forward and backward')
    watch.watch(model.data_preprocessor, 'forward', 'preprocessor')
    for role, wrapper in runner.optim_wrapper.items():
        watch.watch(wrapper, 'step', f'optimiser {role}')
        watch.watch(wrapper, 'zero_grad', f'optimiser {role}')
    run_iter, iterations = loop.run_iter, 0

    def timed(index: int, data: Any) -> None:
        nonlocal iterations
        watch.leave()
        watch.enter('loop itself')
        run_iter(index, data)
        watch.leave()
        iterations += 1
        if iterations == args.iterations:  # it is warm now
            watch.seconds.clear()
        watch.enter('loader')

    loop.run_iter = timed
    runner.register_hook(_Edge('before_train_epoch', lambda: watch.enter('loader')), 'LOWEST')
    runner.register_hook(_Edge('after_train_epoch', watch.leave), 'HIGHEST')
    runner.train()
    total = sum(watch.seconds.values())
    return [
        {
            'method': method,
            'batch': batch,
            'part': part,
            'us/iteration': 1e6 * seconds / (iterations - args.iterations),
            'percent': 100 * seconds / total,
        }
        for part, seconds in watch.seconds.most_common()
    ]
