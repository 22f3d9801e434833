"""How long a message takes to reach clients that are waiting in a long poll: one client, and a room full of them.

The clock runs from before the request is written to the arrival of the last byte of the last response that carries the message.
A poll that returns early, with something else, is counted and taken up again from its token.
"""

import asyncio
import time
from functools import partial

from bin.benchmark.account import Account, Json, parse
from bin.benchmark.connection import Response
from bin.benchmark.row import IN_FLIGHT, Figure, Row, Sample, Scale, median, percentile

POLL_SECONDS = 30.0
SETTLE_SECONDS = 0.05
"""Between the start of one client's poll and the send: a poll that is not yet held would be answered at once."""

CROWD_SETTLE_SECONDS = 3.0
"""The same for a whole crowd of polls."""

FILTER_LIMIT = 10


def messages_of(answer: Json, room_id: str) -> list[Json]:
    """The room's messages in a sync response."""
    events: list[Json] = answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {}).get("events", [])
    return [event for event in events if event["type"] == "m.room.message"]


class SendToSync(Row):
    """One sender and one waiting receiver in one room, one message at a time."""

    name = "send-to-sync"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (
            Figure("send-to-sync-p50", "send to a waiting sync, p50", "ms", ratio=1 / 12),
            Figure("send-to-sync-p99", "send to a waiting sync, p99", "ms", ratio=1 / 10),
        )

    async def prepare(self) -> None:
        self.sender, self.receiver = await self.server.register(self.name, 2)
        self.room_id = await self.sender.create_room(preset="public_chat")
        await self.receiver.join(self.room_id)
        self.filter = await self.receiver.filter(FILTER_LIMIT)
        answer, _ = await self.receiver.sync(None, 0, self.filter)
        self.since: str = answer["next_batch"]

    async def measure(self, number: int) -> Sample:
        times: list[float] = []
        answers: list[float] = []
        early = 0
        faults: list[str] = []
        meter = self.server.meter()
        for count in range(self.scale.deliveries):
            body = f"delivery {number}.{count}"
            poll = asyncio.create_task(self.receiver.poll(self.since, POLL_SECONDS, self.filter))
            await asyncio.sleep(SETTLE_SECONDS)
            request = self.sender.message(self.room_id, body)
            start = time.perf_counter()
            sending = asyncio.create_task(self.sender.put_message(request))
            received: Response | None = None
            while received is None:
                response = await poll
                answer = parse("GET /sync", response)
                self.since = answer["next_batch"]
                found = [e for e in messages_of(answer, self.room_id) if e["content"].get("body") == body]
                if found:
                    received = response
                elif time.perf_counter() - start > POLL_SECONDS:
                    break
                else:
                    early += 1
                    poll = asyncio.create_task(self.receiver.poll(self.since, POLL_SECONDS, self.filter))
            event_id, sent = await sending
            answers.append(sent.received - start)
            if received is None:
                faults.append(f"message {count} did not reach the sync within {POLL_SECONDS:g} s")
                break
            times.append(received.received - start)
            if [event["event_id"] for event in found] != [event_id]:
                faults.append(f"message {count} was acknowledged as {event_id} and delivered as something else")
        usage = meter.read()
        milliseconds = [1000 * value for value in times]
        return Sample(
            {
                "send-to-sync-p50": median(milliseconds) if times else None,
                "send-to-sync-p99": percentile(milliseconds, 0.99) if times else None,
            },
            {
                "samples_ms": [round(value, 3) for value in milliseconds],
                "put_p50_ms": 1000 * median(answers),
                "put_p99_ms": 1000 * percentile(answers, 0.99),
                "early_polls": early,
            },
            faults,
            usage,
        )


class Waiting(Row):
    """A room whose members all wait; a message is sent, and the last of them has it. Memory is read while they wait."""

    name = "waiting"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (
            Figure(
                "waiting-last", f"last of {scale.waiting} waiting clients in one room has a message", "ms", ratio=1 / 25
            ),
            Figure(
                "memory", f"memory of all processes but PostgreSQL, {scale.waiting} held polls (PSS)", "MiB", ratio=1
            ),
        )

    async def prepare(self) -> None:
        self.progress(f"registering {self.scale.waiting + 1} users")
        (self.sender,) = await self.server.register(f"{self.name}-sender", 1)
        self.waiters = await self.server.register(self.name, self.scale.waiting)
        self.room_id = await self.sender.create_room(preset="public_chat")
        await self.all("joins", [partial(waiter.join, self.room_id) for waiter in self.waiters])
        self.filters = await self.all("filters", [partial(waiter.filter, FILTER_LIMIT) for waiter in self.waiters])

        async def first(waiter: Account, filter_id: str) -> str:
            answer, _ = await waiter.sync(None, 0, filter_id)
            token: str = answer["next_batch"]
            return token

        self.tokens: list[str] = await self.all(
            "initial syncs",
            [partial(first, w, f) for w, f in zip(self.waiters, self.filters, strict=True)],
            IN_FLIGHT // 4,
        )

    async def measure(self, number: int) -> Sample:
        lasts: list[float] = []
        firsts: list[float] = []
        early = 0
        faults: list[str] = []
        held: int | None = None
        meter = self.server.meter()
        for count in range(self.scale.waiting_messages):
            polls = [self._poll(index) for index in range(len(self.waiters))]
            await asyncio.sleep(CROWD_SETTLE_SECONDS)
            # Whoever came back at once (the end of an earlier change) takes up its poll again.
            for index, poll in enumerate(polls):
                if poll.done():
                    early += 1
                    self.tokens[index] = parse("GET /sync", poll.result())["next_batch"]
                    polls[index] = self._poll(index)
            await asyncio.sleep(0.5)
            if count == 0:
                held = self.server.memory()
            request = self.sender.message(self.room_id, f"to all {number}.{count}")
            start = time.perf_counter()
            sending = asyncio.create_task(self.sender.put_message(request))
            responses = await asyncio.gather(*polls)
            event_id, _ = await sending
            missing = 0
            for index, response in enumerate(responses):
                answer = parse("GET /sync", response)
                self.tokens[index] = answer["next_batch"]
                if [event["event_id"] for event in messages_of(answer, self.room_id)] != [event_id]:
                    missing += 1
            if missing:
                faults.append(f"message {count}: {missing} waiting clients were answered without it, or with more")
            lasts.append(1000 * (max(response.received for response in responses) - start))
            firsts.append(1000 * (min(response.received for response in responses) - start))
        usage = meter.read()
        return Sample(
            {"waiting-last": median(lasts), "memory": None if held is None else held / 2**20},
            {"lasts_ms": lasts, "firsts_ms": firsts, "early_polls": early},
            faults,
            usage,
        )

    def _poll(self, index: int) -> asyncio.Task[Response]:
        waiter = self.waiters[index]
        return asyncio.create_task(waiter.poll(self.tokens[index], POLL_SECONDS, self.filters[index]))
