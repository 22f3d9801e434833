"""Rooms created and rooms joined per second, 32 requests in flight; what was acknowledged is asked back afterwards."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from bin.benchmark.account import Account
from bin.benchmark.row import IN_FLIGHT, Figure, Job, Row, Sample, Scale, failure_sentences, keep_busy


class Rooms(Row):
    """32 users each create one room after another, with the preset `private_chat` and a name (seven events)."""

    name = "rooms"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (Figure("rooms", "rooms created, 32 in flight", "/s", True, ratio=22),)

    async def prepare(self) -> None:
        self.progress(f"registering {IN_FLIGHT * self.rounds} users")
        self.creators = await self.server.register(self.name, IN_FLIGHT * self.rounds)

    async def measure(self, number: int) -> Sample:
        creators = self.creators[number * IN_FLIGHT : (number + 1) * IN_FLIGHT]
        made: dict[str, list[str]] = defaultdict(list)
        last = 0.0

        async def create(account: Account, count: int) -> None:
            nonlocal last
            room_id = await account.create_room(preset="private_chat", name=f"Room {count}")
            made[account.user_id].append(room_id)
            last = time.perf_counter()

        def jobs() -> Iterator[Job]:
            for count, account in enumerate(itertools.cycle(creators)):
                yield partial(create, account, count)

        meter = self.server.meter()
        start = time.perf_counter()
        failures = await keep_busy(jobs(), IN_FLIGHT, self.scale.seconds)
        usage = meter.read()
        faults = failure_sentences(failures)
        for account in creators:
            rooms = await account.joined_rooms()
            if sorted(rooms) != sorted(made[account.user_id]):
                faults.append(f"{account.user_id} made {len(made[account.user_id])} rooms and is in {len(rooms)}")
        total = sum(map(len, made.values()))
        rate = total / (last - start) if total else None
        return Sample({"rooms": rate}, {"rooms": total}, faults, usage)


class Joins(Row):
    """Every user joins every one of a set of public rooms, user by user; each round has new rooms."""

    name = "joins"

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        title = f"joins, 32 in flight, {scale.join_rooms} public rooms × up to {scale.join_users} users"
        return (Figure("joins", title, "/s", True, ratio=20),)

    async def prepare(self) -> None:
        self.progress(f"registering {self.scale.join_users + 1} users")
        (self.owner,) = await self.server.register(f"{self.name}-owner", 1)
        self.users = await self.server.register(self.name, self.scale.join_users)
        self.room_ids: list[str] = await self.all(
            "rooms",
            [partial(self.owner.create_room, preset="public_chat")] * (self.scale.join_rooms * self.rounds),
        )

    async def measure(self, number: int) -> Sample:
        rooms = self.room_ids[number * self.scale.join_rooms : (number + 1) * self.scale.join_rooms]
        joined: dict[str, set[str]] = {room_id: {self.owner.user_id} for room_id in rooms}
        last = 0.0

        async def join(account: Account, room_id: str) -> None:
            nonlocal last
            await account.join(room_id)
            joined[room_id].add(account.user_id)
            last = time.perf_counter()

        meter = self.server.meter()
        start = time.perf_counter()
        failures = await keep_busy(
            (partial(join, account, room_id) for account in self.users for room_id in rooms),
            IN_FLIGHT,
            1.5 * self.scale.seconds,
        )
        usage = meter.read()
        faults = failure_sentences(failures)
        for room_id in rooms:
            members = await self.owner.joined_members(room_id)
            if members != joined[room_id]:
                faults.append(f"{room_id}: {len(joined[room_id])} joins acknowledged, {len(members)} members")
        total = sum(len(members) - 1 for members in joined.values())
        rate = total / (last - start) if total else None
        return Sample({"joins": rate}, {"joins": total}, faults, usage)
