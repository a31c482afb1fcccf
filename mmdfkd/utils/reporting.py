# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How the command-line tools end when something goes wrong."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EROFS}
# torch.save writes files in C++ and forgets the reason when it cannot.
_TORCH_SAVE_FAILED = re.compile(r'inline_container\.cc.*(unexpected pos|failed writing)', re.DOTALL)
_PATIENCE = 5  # seconds in which a launcher ends the other processes
_MEMORY_ASKED_FOR = re.compile(r'\w+ to allocate [\d.]+ \w+')


@contextmanager
def report_errors(resume_hint: Callable[[], str] | None = None) -> Iterator[None]:
    """End a command with one sentence where a user can help, with a traceback where we must.

    ============================================  =========================================  ====
    in the block                                  on standard error                          exit
    ============================================  =========================================  ====
    :class:`UsageError`, anywhere in the chain    ``error: <its message>``                   2
    disk or quota full, no permission             which file, and what to do                 2
    out of memory (GPU or CPU)                    what was asked for, and what to do         2
    Ctrl-C                                        ``interrupted: <resume_hint()>``           130
    anything else                                 its traceback: a bug is a bug              1
    ============================================  =========================================  ====

    What goes wrong in several processes alike is said by the first: the others give the launcher
    time to end them before they speak.

    Args:
        resume_hint: Returns what was kept and the command that continues; called after a Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        hint = resume_hint() if resume_hint else 'nothing was kept.'
        print(f'\ninterrupted: {hint}', file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        rank = int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0)
        if rank:
            time.sleep(_PATIENCE)
        print(f'error{f" of process {rank}" if rank else ""}: {message}', file=sys.stderr)
        raise SystemExit(2) from None


def explain(error: BaseException) -> str | None:
    """Return the sentence for ``error``, or ``None`` if it is not a user's to put right.

    Frameworks re-raise exceptions in others of their own, so causes and contexts are looked
    through as well; the outermost one that has a sentence speaks.
    """
    seen: BaseException | None = error
    while seen is not None:
        message = _sentence(seen)
        if message is not None:
            return message
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, UsageError):
        # A loader's worker process sends its whole traceback as the message.
        return str(error).rpartition(f'{UsageError.__name__}: ')[2].strip()
    if isinstance(error, OSError) and error.errno in _FULL:
        return f'{error.strerror}: {_file(error)}. Free some space, or write to another --work-dir.'
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return f'{error.strerror}: {_file(error)}. Allow it, or choose another place.'
    if isinstance(error, RuntimeError) and _TORCH_SAVE_FAILED.search(str(error)):
        return f'Could not write {_file(error)}: the disk is full, most likely. Free some space.'
    if isinstance(error, ImportError) and 'pip install' in str(error):  # a library says how
        return f'A package is missing: {error}'
    # By name: torch keeps its class in different places, and need not be imported to ask.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {'OutOfMemoryError', 'MemoryError'} or 'DefaultCPUAllocator' in str(error):
        asked = _MEMORY_ASKED_FOR.search(str(error))
        return (
            f'Out of memory{f" ({asked.group()})" if asked else ""}. Lower the batch size '
            '(train_dataloader.batch_size; optim_wrapper.*.accumulative_counts makes up for it), '
            'or try --amp.'
        )
    return None


def _file(error: Exception) -> str:
    """Return the path an error is about; failed writes do not name theirs, so ask who wrote."""
    named = getattr(error, 'filename', None)
    if named is not None:
        return str(named)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for name, value in frame.f_locals.items():
            if isinstance(value, io.IOBase):
                value = getattr(value, 'name', None)
            elif (frame.f_globals.get('__name__'), name) != ('torch.serialization', 'f'):
                continue
            if isinstance(value, (str, os.PathLike)):
                return str(value)
    return 'a file of this run'
