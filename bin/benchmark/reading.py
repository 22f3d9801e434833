"""What clients read: a first initial sync, syncs with nothing new, and pages of history."""

import itertools
import time
from collections.abc import Iterator
from functools import partial

from bin.benchmark.account import Account, Json, parse
from bin.benchmark.row import (
    IN_FLIGHT,
    Figure,
    Job,
    Row,
    Sample,
    Scale,
    failure_sentences,
    keep_busy,
    median,
    percentile,
)


class InitialSync(Row):
    """The first sync of a user in many rooms, without a filter; each measured user has never synced before."""

    name = "initial-sync"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        title = f"first initial sync, {scale.sync_rooms} rooms × {scale.sync_members} members"
        return (Figure("initial-sync", title, "ms", ratio=1 / 20),)

    async def prepare(self) -> None:
        scale = self.scale
        self.users = await self.server.register(self.name, scale.sync_members)
        owners = [self.users[room % len(self.users)] for room in range(scale.sync_rooms)]
        self.room_ids: list[str] = await self.all(
            "rooms", [partial(owner.create_room, preset="public_chat", name="A room") for owner in owners]
        )
        joins = [
            (user, room_id)
            for user in self.users
            for owner, room_id in zip(owners, self.room_ids, strict=True)
            if user is not owner
        ]
        await self.all("joins", [partial(user.join, room_id) for user, room_id in joins])
        sends = [
            (self.users[(room + count) % len(self.users)], room_id, f"message {count}")
            for count in range(scale.sync_messages)
            for room, room_id in enumerate(self.room_ids)
        ]
        await self.all("messages", [partial(user.send, room_id, body) for user, room_id, body in sends])

    async def measure(self, number: int) -> Sample:
        each = max(1, min(self.scale.sync_measured, len(self.users) // self.rounds))
        users = self.users[number * each : (number + 1) * each]
        if not users:
            raise RuntimeError(f"{self.rounds} rounds need as many users who never synced")
        times: list[float] = []
        sizes: list[int] = []
        faults: list[str] = []
        meter = self.server.meter()
        for user in users:
            start = time.perf_counter()
            answer, response = await user.sync()
            times.append(1000 * (response.received - start))
            sizes.append(len(response.body))
            faults += self._faults(user, answer)
        return Sample({"initial-sync": median(times)}, {"times_ms": times, "bytes": sizes}, faults, meter.read())

    def _faults(self, user: Account, answer: Json) -> list[str]:
        rooms: Json = answer.get("rooms", {}).get("join", {})
        if sorted(rooms) != sorted(self.room_ids):
            return [f"{user.user_id} is in {len(self.room_ids)} rooms and its sync has {len(rooms)}"]
        for room_id, room in rooms.items():
            timeline, state = room["timeline"]["events"], room["state"]["events"]
            members = {event["state_key"] for event in state + timeline if event["type"] == "m.room.member"}
            messages = [event["event_id"] for event in timeline if event["type"] == "m.room.message"]
            if len(members) != len(self.users) or len(set(messages)) != self.scale.sync_messages:
                return [f"{room_id} has {len(members)} members and {len(messages)} messages in {user.user_id}'s sync"]
        return []


SETTLING = 3
"""Syncs of each user before idle ones are measured."""


class IdleSync(Row):
    """Incremental syncs from the current token with no waiting: 32 in flight, one per user."""

    name = "idle-sync"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        title = f"idle incremental syncs, 32 in flight, {scale.idle_users} users in {scale.idle_rooms} rooms"
        return (Figure("idle-sync", title, "/s", True, ratio=8),)

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, self.scale.idle_users)
        rooms = await self.all(
            "rooms", [partial(self.users[0].create_room, preset="public_chat")] * self.scale.idle_rooms
        )
        joins = [(user, room_id) for user in self.users[1:] for room_id in rooms]
        await self.all("joins", [partial(user.join, room_id) for user, room_id in joins])

    async def measure(self, number: int) -> Sample:
        tokens: dict[str, str] = {}
        filters = {user.user_id: await user.filter(20) for user in self.users}
        # Whoever syncs comes online, which the others are told: only when all have been is there nothing more to tell.
        for _ in range(SETTLING):
            for user in self.users:
                answer, _ = await user.sync(tokens.get(user.user_id), 0, filters[user.user_id])
                tokens[user.user_id] = answer["next_batch"]
        done = busy = 0
        latencies: list[float] = []

        async def sync(user: Account) -> None:
            nonlocal done, busy
            before = time.perf_counter()
            response = await user.poll(tokens[user.user_id], 0, filters[user.user_id])
            latencies.append(1000 * (response.received - before))
            answer = parse("GET /sync", response)
            busy += bool(answer.get("rooms", {}).get("join") or answer.get("presence", {}).get("events"))
            done += 1

        def jobs() -> Iterator[Job]:
            for user in itertools.cycle(self.users):
                yield partial(sync, user)

        meter = self.server.meter()
        start = time.perf_counter()
        failures = await keep_busy(jobs(), IN_FLIGHT, self.scale.seconds / 2)
        wall = time.perf_counter() - start
        usage = meter.read()
        faults = failure_sentences(failures)
        if busy:
            faults.append(f"{busy} of {done} idle syncs were not empty")
        return Sample(
            {"idle-sync": done / wall},
            {
                "syncs": done,
                "p50_ms": median(latencies) if latencies else None,
                "p99_ms": percentile(latencies, 0.99) if latencies else None,
                "generator_us_per_sync": 1e6 * usage.generator * usage.wall / max(1, done),
                "server_us_per_sync": 1e6 * usage.server * usage.wall / max(1, done),
            },
            faults,
            usage,
        )


class MessagesPage(Row):
    """Pages of 100 from /messages, walking back from the room's end to its beginning, one at a time."""

    name = "messages-page"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        title = f"a page of 100 from /messages, {scale.history} messages in the room"
        return (Figure("messages-page", title, "ms", ratio=1 / 8),)

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, 4)
        self.room_id = await self.users[0].create_room(preset="public_chat")
        for user in self.users[1:]:
            await user.join(self.room_id)
        sends = [(self.users[count % 4], f"line {count} of the room's history") for count in range(self.scale.history)]
        self.sent: list[str] = await self.all(
            "messages", [partial(user.send, self.room_id, body) for user, body in sends]
        )

    async def measure(self, number: int) -> Sample:
        times: list[float] = []
        faults: list[str] = []
        meter = self.server.meter()
        for _ in range(self.scale.history_walks):
            found: list[str] = []
            token: str | None = None
            for _page in range(2 + self.scale.history // 50):
                start = time.perf_counter()
                answer, response = await self.users[0].messages(self.room_id, token)
                full = len(answer["chunk"]) == 100
                if full:
                    times.append(1000 * (response.received - start))
                found += [event["event_id"] for event in answer["chunk"] if event["type"] == "m.room.message"]
                token = answer.get("end")
                if token is None:
                    break
            if sorted(found) != sorted(self.sent):
                faults.append(f"{len(self.sent)} messages were sent, {len(found)} found, {len(set(found))} different")
        if not times:
            faults.append("no page had 100 events")
        value = median(times) if times else None
        return Sample({"messages-page": value}, {"times_ms": [round(t, 3) for t in times]}, faults, meter.read())
