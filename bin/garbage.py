"""When Python looks for cyclic garbage.

Invariant: what is loaded at start is never looked at again, and the young are looked at rarely: requests make hardly any cycles,
but with the default threshold of 700 objects a collection falls into every few requests, and each full one walks all caches. A
sampling profile of an API process under load showed about a fifth of its time in that.
"""

from __future__ import annotations

import asyncio
import gc

from bin.allocator import give_back, keep_little

YOUNG = 50_000
"""Objects made before the youngest are looked at."""


def settle() -> None:
    """Call once everything is loaded, in the process that will serve, on its loop."""
    keep_little()
    give_back(asyncio.get_running_loop())
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 100)
