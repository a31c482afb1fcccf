# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What one process does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mmengine.dist import broadcast_object_list, get_rank

from mmdfkd.utils import UsageError

T = TypeVar('T')


def on_first_process(action: Callable[[], T]) -> T:
    """Let the first process act; all get its answer, or raise its ``UsageError``.

    Args:
        action: What to do; its answer must be one that can be pickled.
    """
    answer: list[Any] = [None]
    if get_rank() == 0:
        try:
            answer = [action()]
        except UsageError as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], UsageError):
        raise answer[0]
    return answer[0]
