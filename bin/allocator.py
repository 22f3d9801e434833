"""How the C library keeps memory: what is freed is given back to the system.

Invariant: a burst is not paid for ever after. By default glibc learns from the first large block that is freed to keep its
like: two threads that hash passwords, of 19 MiB each, then hold 38 MiB for good. And what an answer of 20,000 events was built
from leaves holes between what is kept, of which glibc gives back none until it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of <malloc.h>."""
LARGE_BYTES = 4 << 20
"""A block of so much is mapped by itself; media pieces of a megabyte are not."""
TRIM_BYTES = 1 << 20
ARENAS = 2
TRIM_SECONDS = 10.0
WORTH_SECONDS = 0.2
"""Processor time since the last look below which there is nothing worth looking for."""


def keep_little() -> None:
    """Call before threads begin. Without glibc nothing is changed."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)


def give_back(loop: asyncio.AbstractEventLoop) -> None:
    """Gives back what lies between kept blocks, now and then for as long as the loop runs. Without glibc nothing happens.

    A round takes some tenths of a millisecond, some milliseconds where much is given back.
    """
    with contextlib.suppress(OSError, AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        loop.call_later(TRIM_SECONDS, _round, loop, trim, time.process_time())


def _round(loop: asyncio.AbstractEventLoop, trim: Callable[[int], int], before: float) -> None:
    now = time.process_time()
    if now - before > WORTH_SECONDS:
        trim(0)
        before = now
    loop.call_later(TRIM_SECONDS, _round, loop, trim, before)
