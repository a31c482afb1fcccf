# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Progress bars with time left, for whoever sits at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
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


def progress_bar(transient: bool = True) -> Progress:
    """A bar with count, time spent and time left; silent where standard error is no terminal."""
    console = Console(stderr=True)
    return Progress(
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


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Iterate over ``items`` behind a progress bar."""
    total = len(items) if isinstance(items, Sized) else None
    with progress_bar() as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)
