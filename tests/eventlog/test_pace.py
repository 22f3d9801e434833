"""A pace: however many write whatever and whenever, no stretch of time sees more than its rate allows, and nobody overtakes."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from eventlog.pace import Pace

RATE = 1000.0


class Time:
    """A clock that moves when it is told to, and those who sleep by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + seconds, len(self._sleepers), woken))
        await woken.wait()

    async def pass_by(self, until: float) -> None:
        """Wakes who sleeps, each at their time."""
        for at, place, woken in sorted(self._sleepers, key=lambda one: one[:2]):
            if at <= until:
                self.now = at
                self._sleepers = [one for one in self._sleepers if one[1] != place or one[0] != at]
                woken.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        self.now = until


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 2000)), min_size=1, max_size=30))
def test_no_stretch_of_time_sees_more_than_its_rate_and_a_piece(writes: list[tuple[float, int]]) -> None:
    async def run() -> None:
        time = Time()
        pace = Pace(RATE, clock=time.clock, sleep=time.sleep)
        done: list[tuple[float, int, int]] = []

        async def write(number: int, size: int) -> None:
            await pace.take(size)
            done.append((time.now, number, size))

        tasks = []
        for number, (pause, size) in enumerate(writes):
            await time.pass_by(time.now + pause)
            tasks.append(asyncio.create_task(write(number, size)))
            await asyncio.sleep(0)
        await time.pass_by(time.now + 1000)
        await asyncio.gather(*tasks)
        assert [number for _, number, _ in done] == list(range(len(writes)))
        for first in range(len(done)):
            for last in range(first, len(done)):
                stretch = done[last][0] - done[first][0]
                # What is let through last is written afterwards.
                assert sum(size for *_, size in done[first:last]) <= RATE * stretch + 1e-6
        # And nobody waits who need not.
        total = sum(size for _, size in writes)
        assert done[-1][0] <= sum(pause for pause, _ in writes) + total / RATE

    asyncio.run(run())


async def test_without_a_rate_nobody_waits() -> None:
    async def never(seconds: float) -> None:
        raise AssertionError(seconds)

    pace = Pace(0, sleep=never)
    for _ in range(1000):
        await pace.take(1 << 30)
