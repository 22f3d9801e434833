"""How the C library keeps memory: what is large is given back to the system when it is freed.

Invariant: a burst is not paid for ever after. By default glibc learns from the first large block that is freed to keep its
like: two threads that hash passwords, of 19 MiB each, then hold 38 MiB for good.
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of <malloc.h>."""
LARGE_BYTES = 4 << 20
"""A block of so much is mapped by itself; media pieces of a megabyte are not."""
TRIM_BYTES = 1 << 20
ARENAS = 2


def keep_little() -> None:
    """Call before threads begin. Without glibc nothing is changed."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)
