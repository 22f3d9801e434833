"""The pace of bulk writes: so many bytes a second, however many write.

Invariant: between any two moments a process writes what the rate allows for the time, and one piece. Whoever comes first goes
first, so that who has little to write waits for a piece of each other at most.

Uploads at full speed put a hundred megabytes a second into the WAL, and walsenders decode all of it in order: a message then waits
behind them until it is on the disk, and once more until the room server hears of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Lets bytes through at a rate a second; 0: at once."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Returns when so many bytes may be written."""
        if not self._rate:
            return
        now = self._clock()
        begin = max(now, self._free_at)
        self._free_at = begin + size / self._rate
        if begin > now:
            await self._sleep(begin - now)
