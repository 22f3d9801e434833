"""A row of the benchmark: what it sets up once per server, what it measures each round, and the figures it must give.

A row that fails raises; the run prints the reason in the table. A row that finds a wrong count returns it as a fault beside its
figures, and the figures are then printed as an error too.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from bin.benchmark.processes import Usage
from bin.benchmark.servers import Server

Progress = Callable[[str], None]
Job = Callable[[], Awaitable[object]]
T = TypeVar("T")

IN_FLIGHT = 32


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` is the target of Walden's value over Synapse's, `limit` one of Walden's value alone."""

    key: str
    title: str
    unit: str
    more_is_better: bool = False
    ratio: float | None = None
    limit: float | None = None

    def met(self, value: float, peer: float | None) -> bool | None:
        """Whether the target is met; None when there is none, or nothing to compare with."""
        if self.limit is not None:
            return value <= self.limit
        if self.ratio is None or not peer:
            return None
        return value / peer >= self.ratio if self.more_is_better else value / peer <= self.ratio

    def target(self) -> str:
        if self.limit is not None:
            return f"≤ {self.limit:g}"
        if self.ratio is None:
            return ""
        return f"{self.ratio:g}×" if self.ratio >= 1 else f"1/{1 / self.ratio:.0f}"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much each row does; `QUICK` is for finding faults, not for figures."""

    seconds: float = 10.0
    rooms: int = 50
    members: int = 4
    deliveries: int = 200
    join_rooms: int = 20
    join_users: int = 100
    sync_rooms: int = 100
    sync_members: int = 20
    sync_messages: int = 5
    sync_measured: int = 5
    idle_users: int = 32
    idle_rooms: int = 5
    history: int = 2000
    history_walks: int = 3
    waiting: int = 300
    waiting_messages: int = 5
    stored_messages: int = 2000
    stored_states: int = 2000
    generated_events: int = 10_000_000
    large_members: int = 5000
    large_messages: int = 2000
    large_states: int = 20_000


QUICK = Scale(
    seconds=2.0, rooms=10, members=2, deliveries=20, join_rooms=5, join_users=10, sync_rooms=10, sync_members=4,
    sync_messages=2, sync_measured=1, idle_users=8, idle_rooms=2, history=200, history_walks=2, waiting=30,
    waiting_messages=2, stored_messages=200, stored_states=50,
    large_members=50, large_messages=100, large_states=200, generated_events=200_000,
)  # fmt: skip


@dataclass(slots=True)
class Sample:
    """What one round gave: a value per figure key (None: cannot be told here), particulars, and faults in the counts."""

    values: dict[str, float | None]
    particulars: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    usage: Usage | None = None


class Row:
    """Base of the rows; one object per server."""

    name: ClassVar[str]
    prepare_seconds: ClassVar[float] = 900.0
    measure_seconds: ClassVar[float] = 300.0
    by_default: ClassVar[bool] = True
    """Whether it runs when no rows are named."""

    def __init__(self, server: Server, scale: Scale, rounds: int, progress: Progress) -> None:
        self.server = server
        self.scale = scale
        self.rounds = rounds
        self.progress = progress

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        raise NotImplementedError

    async def prepare(self) -> None:
        """Sets up users and rooms; not measured."""

    async def measure(self, number: int) -> Sample:
        """One round; `number` counts from zero."""
        raise NotImplementedError

    async def all(self, what: str, jobs: Sequence[Callable[[], Awaitable[T]]], in_flight: int = IN_FLIGHT) -> list[T]:
        """Runs every job, `in_flight` at a time, with progress; their results in order. The first failure ends it."""
        results: dict[int, T] = {}
        numbers = iter(range(len(jobs)))
        done = 0
        shown = time.monotonic()

        async def work() -> None:
            nonlocal done, shown
            for number in numbers:
                results[number] = await jobs[number]()
                done += 1
                if time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    self.progress(f"{what} {done}/{len(jobs)}")

        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(jobs))):
                group.create_task(work())
        return [results[number] for number in range(len(jobs))]


async def keep_busy(jobs: Iterable[Job], in_flight: int, seconds: float) -> list[Exception]:
    """Runs jobs `in_flight` at a time until they are used up or `seconds` have passed, and waits for those begun.

    A failed job is returned, not repeated, and the next one goes on.
    """
    deadline = time.perf_counter() + seconds
    source = iter(jobs)
    failures: list[Exception] = []

    async def work() -> None:
        for job in source:
            try:
                await job()
            except Exception as failure:
                failures.append(failure)
            if time.perf_counter() >= deadline:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    return failures


def failure_sentences(failures: Sequence[BaseException]) -> list[str]:
    """The failures of requests as one fault, with the first of them in words."""
    if not failures:
        return []
    return [f"{len(failures)} requests failed, the first: {failures[0]!r:.300}"]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
