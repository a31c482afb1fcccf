# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""How the C library deals with memory."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep memory that is freed, for its next tensors.

    glibc maps tensors of more than 32 MiB anew and gives them back when they are freed, so that
    each layer writes to pages which the kernel has to find and clear first: a quarter of
    a ResNet20's forward pass over 512 images, see ``docs/en/advanced_guides/speed.md``.
    Results are the same; the process stays as large as it ever was.

    Returns:
        Whether it worked, which takes glibc; Linux mostly has it.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
