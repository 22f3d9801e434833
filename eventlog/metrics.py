"""What a process counts: in plain memory first, handed over to Prometheus' client once a second.

Invariant: counting costs a fraction of a microsecond and touches no file (`prometheus_client` takes 2 to 4 µs a time where several
processes are added up, a tenth of what an event may cost), and nothing is counted twice. What a killed process counted in its last
second is lost. No label has an unbounded set of values: none names a room, a user or one process's slot. All of it happens on the
event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

SECONDS: Final = 1.0
"""Between two times that a process hands over: a scrape is behind by so much at most."""

log = structlog.get_logger(__name__)

_LOOP_DELAY = Gauge(
    "walden_loop_delay_seconds",
    "How late the event loop woke its last timer.",
    ["component"],
    multiprocess_mode="livemax",
)
LATENCIES: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Bounds of what a client waits for, in seconds."""


class _Kept(Protocol):
    def hand_over(self) -> None: ...


# By weak reference: what is counted for an object ends with it.
_kept: weakref.WeakSet[_Kept] = weakref.WeakSet()


class Tally:
    """A count: `tally.count += 1`."""

    __slots__ = ("__weakref__", "_counter", "count")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.count = 0
        _kept.add(self)

    def hand_over(self) -> None:
        """Adds what was counted since the last time to the counter."""
        if count := self.count:
            self.count = 0
            self._counter.inc(count)


class Tallies:
    """Counts by the values of labels, which the code names and never a client: `tallies.add("send", "PUT", "200")`."""

    __slots__ = ("__weakref__", "_counter", "_counts")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counts: dict[tuple[str, ...], int] = {}
        _kept.add(self)

    def add(self, *values: str, count: int = 1) -> None:
        """Counts one, or several."""
        self._counts[values] = self._counts.get(values, 0) + count

    def hand_over(self) -> None:
        """Adds what was counted since the last time to the counters."""
        counts, self._counts = self._counts, {}
        for values, count in counts.items():
            self._counter.labels(*values).inc(count)


class Distribution:
    """Observed values, counted in the buckets of a histogram."""

    __slots__ = ("__weakref__", "_bounds", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = tuple(histogram._upper_bounds)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        _kept.add(self)

    def observe(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def hand_over(self) -> None:
        """Adds what was observed since the last time to the histogram."""
        if not any(self._counts):
            return
        counts, self._counts = self._counts, [0] * len(self._counts)
        total, self._sum = self._sum, 0.0
        # PERF: the client has no call that takes more than one observation.
        for bucket, count in zip(self._histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(total)


class Level:
    """A value that is looked at when it is handed over. Keep it: it ends with its owner."""

    __slots__ = ("__weakref__", "_gauge", "_read")

    def __init__(self, gauge: Gauge, read: Callable[[], float]) -> None:
        self._gauge = gauge
        self._read = read
        _kept.add(self)

    def hand_over(self) -> None:
        """Sets the gauge."""
        self._gauge.set(self._read())


def hand_over() -> None:
    """Hands over everything that this process counts. Metrics never end what they measure: what fails is said."""
    for one in tuple(_kept):
        try:
            one.hand_over()
        except Exception as error:
            log.warning("a metric could not be handed over", error=repr(error))


@contextlib.asynccontextmanager
async def handed_over(component: str) -> AsyncIterator[None]:
    """Hands over once a second within the block, and at its end. `component` is the process's name in the metrics."""
    task = asyncio.create_task(_keep_handing_over(_LOOP_DELAY.labels(component)), name="metrics")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        hand_over()


async def _keep_handing_over(delay: Gauge) -> None:
    while True:
        before = monotonic()
        await asyncio.sleep(SECONDS)
        delay.set(max(0.0, monotonic() - before - SECONDS))
        hand_over()
