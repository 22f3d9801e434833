"""Events per second that are accepted AND delivered, with 32 requests in flight, in one room and in many.

The clock runs from the first request to the moment when a live observer has received the last acknowledged event. Afterwards a
late observer, whose token is from before, catches up; both must have every acknowledged event once and in the same order, and
each sender's events in the order of its answers.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from bin.benchmark.account import Account, Refused
from bin.benchmark.connection import ConnectionFailed
from bin.benchmark.observer import Observer, differences
from bin.benchmark.row import IN_FLIGHT, Figure, Row, Sample, Scale, failure_sentences, median, percentile

DELIVERY_SECONDS = 60.0
"""How long the live observer may take for the rest once the last request is answered."""


class Throughput(Row):
    """Base of the two rows; a round's stage is who sends where."""

    key: ClassVar[str]

    @classmethod
    def sizes(cls, scale: Scale) -> tuple[int, int]:
        """How many rooms, and how many sending members each."""
        raise NotImplementedError

    async def prepare(self) -> None:
        rooms, members = self.sizes(self.scale)
        self.progress(f"registering {IN_FLIGHT + 2} users")
        senders = await self.server.register(self.name, IN_FLIGHT)
        watchers = await self.server.register(f"{self.name}-watcher", 2)
        # Each round has rooms of its own: what one leaves in a room (extremities) must not slow the next.
        self.stages: list[list[tuple[Account, str]]] = []
        for _ in range(self.rounds):
            crowds = [[senders[(room * members + i) % IN_FLIGHT] for i in range(members)] for room in range(rooms)]
            created = await self.all("rooms", [partial(crowd[0].create_room, preset="public_chat") for crowd in crowds])
            for watcher in watchers:
                await self.all("joins", [partial(watcher.join, room_id) for room_id in created], 4)
            places = [(account, room_id) for crowd, room_id in zip(crowds, created, strict=True) for account in crowd]
            joins = [place for index, place in enumerate(places) if index % members]
            await self.all("joins", [partial(account.join, room_id) for account, room_id in joins])
            self.stages.append(places)
        self.live, self.late = (Observer(watcher) for watcher in watchers)
        await self.live.begin()
        await self.late.begin()

    async def measure(self, number: int) -> Sample:
        acknowledged: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        latencies: list[float] = []
        failures: list[Exception] = []
        places = self.stages[number]
        self.live.reset()
        self.late.reset()
        self.live.follow()
        await asyncio.sleep(0.3)

        def jobs(worker: int) -> Iterator[tuple[int, Account, str, str]]:
            own = list(enumerate(places))[worker::IN_FLIGHT]
            for count, (pair, (account, room_id)) in enumerate(itertools.cycle(own)):
                yield pair, account, room_id, f"message {count} of round {number} by worker {worker}"

        async def work(worker: int) -> None:
            for pair, account, room_id, body in jobs(worker):
                before = time.perf_counter()
                if before >= deadline:
                    return
                try:
                    event_id, response = await account.put_message(account.message(room_id, body))
                except (ConnectionFailed, Refused, ValueError, KeyError) as failure:
                    failures.append(failure)
                    continue
                latencies.append(response.received - before)
                acknowledged[room_id][pair].append(event_id)

        meter = self.server.meter()
        start = time.perf_counter()
        deadline = start + self.scale.seconds
        try:
            async with asyncio.TaskGroup() as group:
                for worker in range(min(IN_FLIGHT, len(places))):
                    group.create_task(work(worker))
            accepted = time.perf_counter()
            delivered = await self.live.reach(len(latencies), DELIVERY_SECONDS)
            usage = meter.read()
        finally:
            await self.live.stop()
        extremities = [
            await self.server.extremities(room_id) for room_id in dict.fromkeys(room_id for _, room_id in places)
        ]
        await self.late.drain(len(latencies))
        faults = failure_sentences(failures)
        faults += differences(
            {room_id: list(pairs.values()) for room_id, pairs in acknowledged.items()},
            self.live.seen, self.late.seen, len(failures),
        )  # fmt: skip
        if not delivered and not faults:
            faults.append(f"delivery was not complete {DELIVERY_SECONDS:g} s after the last answer")
        end = max(self.live.last_received, accepted)
        known = [count for count in extremities if count is not None]
        return Sample(
            {f"{self.key}": len(latencies) / (end - start), f"{self.key}-extremities": max(known) if known else None},
            {
                "events": len(latencies),
                "accepted_per_second": len(latencies) / (accepted - start),
                "put_p50_ms": 1000 * median(latencies) if latencies else None,
                "put_p99_ms": 1000 * percentile(latencies, 0.99) if latencies else None,
                "generator_us_per_event": 1e6 * usage.generator * usage.wall / max(1, len(latencies)),
                "server_us_per_event": 1e6 * usage.server * usage.wall / max(1, len(latencies)),
                "postgres_us_per_event": 1e6 * usage.postgres * usage.wall / max(1, len(latencies)),
                "live_syncs": self.live.syncs,
                "live_gaps": self.live.gaps,
                "late_gaps": self.late.gaps,
            },
            faults,
            usage,
        )


class OneRoom(Throughput):
    """32 members of one room, each with one request in flight."""

    name = "one-room"
    key = "events-one-room"

    @classmethod
    def sizes(cls, scale: Scale) -> tuple[int, int]:
        return 1, IN_FLIGHT

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (
            Figure(cls.key, "events accepted and delivered, 32 in flight, 1 room", "/s", True, ratio=30),
            Figure(f"{cls.key}-extremities", "forward extremities after 32 senders in one room", "", limit=2),
        )


class ManyRooms(Throughput):
    """Rooms of a few senders each; every worker goes round its own (sender, room) pairs."""

    name = "many-rooms"
    key = "events-many-rooms"

    @classmethod
    def sizes(cls, scale: Scale) -> tuple[int, int]:
        return scale.rooms, scale.members

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        title = f"events accepted and delivered, 32 in flight, {scale.rooms} rooms"
        return (Figure(cls.key, title, "/s", True, ratio=36),)
