# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""What every selector tells about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

from .selection import Selection


class Selector(ABC):
    """Decides which pool images count; ``SelectionHook`` asks it.

    Attributes:
        needs: Whose logits of the whole pool it wants: any of ``'teacher'`` and ``'student'``.
        once: Asked before the first epoch only, instead of before every one. The answer is part of
            the run's checkpoints, so that a resumed run goes on with it.
        by_batch: Marks the images of every batch instead, in a method ``in_batch``, for methods
            that ask it then.
        index_file: Where an answer is kept from run to run; ``None`` keeps none.
    """

    needs: tuple[Literal['teacher', 'student'], ...] = ()
    once: bool = False
    by_batch: bool = False
    index_file: Path | None = None

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Selection:
        """Select from a pool.

        By keyword it is given ``pool_size``, ``epoch`` (counted from 1), ``max_epochs`` and, as
        ``teacher_logits`` and ``student_logits`` ``(N, K)`` on the CPU, what it ``needs``.
        """

    def settings(self, pool_size: int) -> dict[str, Any]:
        """What of its own an answer for a pool of this size depends on, for the index file."""
        return {}
