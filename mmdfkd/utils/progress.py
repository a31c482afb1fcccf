# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Progress bars with time left, for whoever sits at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TypeVar

from mmengine.dist import is_main_process
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar('T')

_running: list[Progress] = []


class _Bar(Progress):
    """A bar that others find while it runs: two at once would write over each other."""

    def start(self) -> None:
        super().start()
        if not self.disable and self not in _running:
            _running.append(self)

    def stop(self) -> None:
        super().stop()
        if self in _running:
            _running.remove(self)


def progress_bar(transient: bool = True) -> Progress:
    """A bar with count, time spent and time left; silent where standard error is no terminal."""
    console = Console(stderr=True)
    return _Bar(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not (console.is_terminal and is_main_process()),
    )


def stop_bars() -> None:
    """Stop the bars that still run: those of a run that failed."""
    for bar in [*_running]:
        bar.stop()


@contextmanager
def advancing(description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A line of its own below a bar that runs, or else a bar; yields what advances it by one."""
    with nullcontext(_running[-1]) if _running else progress_bar() as bar:
        task = bar.add_task(description, total=total)
        try:
            yield partial(bar.advance, task)
        finally:
            bar.remove_task(task)


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Iterate over ``items`` behind a progress bar."""
    with advancing(description, len(items) if isinstance(items, Sized) else None) as advance:
        for item in items:
            yield item
            advance()
