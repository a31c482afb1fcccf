# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The one exception a user is meant to read."""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(RuntimeError):
    """Something a user can put right: a config key, a file, a checkpoint, a full disk.

    The message names the file or key, says what was found and what was expected, and ends with
    the remedy. Command-line tools print it alone, without a traceback.
    """


def check_choice(key: str, value: object, allowed: Sequence[object]) -> None:
    """Raise a :class:`UsageError` where the config key ``key`` has none of the allowed values."""
    if value not in allowed:
        choices = ', '.join(map(repr, allowed))
        raise UsageError(f'{key}={value!r} is not known; choose one of {choices}.')


def check_least(key: str, value: float | None, least: float) -> None:
    """Raise a :class:`UsageError` where a number is below ``least``; ``None`` is left alone."""
    if value is not None and value < least:
        raise UsageError(f'{key} is {value}; give {least} or more.')


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """Joins names for a message, at most ``limit`` of them."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
