"""Bytes per message and per state change: the growth of the database on disk, and the WAL written.

Each phase ends when the server is done with what follows its answers: once it hardly writes WAL any more. A vacuum then does what
autovacuum would do at a moment of its own, in this phase or the next, and a checkpoint makes sizes comparable; both belong to no
phase. The WAL so includes the first full image of every page touched, for both servers alike. What a server removes meanwhile
belongs to what was measured before, so a table that shrank counts as one that did not grow: Synapse adds a row a member to its push
actions with a message, and takes them away later. Growth of single tables goes into the JSON file, and the state tables' part of it
into a figure of its own.
"""

import asyncio
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial

from bin.benchmark.cluster import Database
from bin.benchmark.row import IN_FLIGHT, Figure, Job, Row, Sample, Scale

QUIET_SECONDS = 12.0
QUIET_BYTES = 16 << 10
"""A server that writes less WAL in QUIET_SECONDS is done; both have work that they do every ten seconds."""
MOST_SECONDS = 90.0
"""A server that is never quiet is measured as it is."""

SENDERS = 4


@dataclass(frozen=True, slots=True)
class Stock:
    """The database at one moment, in bytes, tables with their indexes and TOAST."""

    wal: float
    tables: dict[str, int]


async def settled(database: Database) -> float:
    """Waits until the server is quiet; the bytes of WAL by then."""
    deadline = time.monotonic() + MOST_SECONDS
    wal = await database.number("wal_position")
    while time.monotonic() < deadline:
        await asyncio.sleep(QUIET_SECONDS)
        before, wal = wal, await database.number("wal_position")
        if wal - before < QUIET_BYTES:
            break
    return wal


async def stock(database: Database) -> Stock:
    wal = await settled(database)
    await database.ask("vacuum")
    await database.ask("checkpoint")
    tables = {str(name): int(size) for name, size in await database.ask("table_sizes")}
    return Stock(wal, tables)


class Bytes(Row):
    """Messages by four senders in one room, each with one request in flight, then state changes one at a time."""

    name = "bytes"
    measure_seconds = 600.0
    place = ""
    """What a figure's title says of the room."""

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        name, place = cls.name, cls.place
        return (
            Figure(f"{name}-message", f"bytes in the database per message{place}", "B", ratio=1),
            Figure(f"{name}-wal-message", f"bytes of WAL per message{place}", "B", ratio=1),
            Figure(f"{name}-state", f"bytes in the database per state change{place}", "B", ratio=1 / 5),
            Figure(f"{name}-state-tables", "of them in tables of room state", "B"),
            Figure(f"{name}-wal-state", f"bytes of WAL per state change{place}", "B", ratio=1 / 5),
        )

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, SENDERS)
        self.messages, self.states = self.scale.stored_messages, self.scale.stored_states

    async def room(self) -> str:
        """A room of all users."""
        room_id = await self.users[0].create_room(preset="public_chat")
        for user in self.users[1:]:
            await user.join(room_id)
        return room_id

    def change(self, room_id: str, number: int) -> Job:
        """A state change: a key of its own."""
        content = {"reading": number, "unit": "kelvin"}
        return partial(self.users[0].set_state, room_id, "org.example.sensor", f"sensor-{number}", content)

    async def measure(self, number: int) -> Sample:
        database = self.server.database
        keys = [figure.key for figure in self.figures(self.scale)]
        if database is None:
            return Sample(dict.fromkeys(keys, None))
        room_id = await self.room()
        before = await stock(database)
        # The WAL of vacuum and checkpoint belongs to nobody: read again after them.
        before_wal = await database.number("wal_position")
        sends = [(self.users[n % SENDERS], f"message {n:06d} with forty characters...") for n in range(self.messages)]
        await self.all("messages", [partial(user.send, room_id, body) for user, body in sends], SENDERS)
        between = await stock(database)
        between_wal = await database.number("wal_position")
        await self.all("state events", [self.change(room_id, n) for n in range(self.states)], 1)
        after = await stock(database)
        growth = {
            "message": growth_of(before, between, self.messages),
            "state": growth_of(between, after, self.states),
        }
        state_tables = sum(
            per for name, per in growth["state"].items() if any(fnmatch(name, p) for p in self.server.state_tables)
        )
        return Sample(
            {
                f"{self.name}-message": sum(growth["message"].values()),
                f"{self.name}-wal-message": (between.wal - before_wal) / self.messages,
                f"{self.name}-state": sum(growth["state"].values()),
                f"{self.name}-state-tables": state_tables if self.server.state_tables else None,
                f"{self.name}-wal-state": (after.wal - between_wal) / self.states,
            },
            {"bytes_by_table": growth},
        )


class BytesLarge(Bytes):
    """The same in a room of 5,000 members, who change their names in it: 20,000 state changes, each replacing one."""

    name = "bytes-large"
    by_default = False
    prepare_seconds = 3600.0
    measure_seconds = 7200.0
    place = ", 5,000 members"

    async def prepare(self) -> None:
        self.messages, self.states = self.scale.large_messages, self.scale.large_states
        self.progress(f"registering {self.scale.large_members} users")
        self.users = await self.server.register(self.name, self.scale.large_members)

    async def room(self) -> str:
        """A room of all users."""
        room_id = await self.users[0].create_room(preset="public_chat")
        joins = [partial(user.join, room_id) for user in self.users[1:]]
        await self.all("joins", joins, IN_FLIGHT)
        return room_id

    def change(self, room_id: str, number: int) -> Job:
        """A state change: a member's name in the room."""
        user = self.users[number % len(self.users)]
        content = {"membership": "join", "displayname": f"Member {number}"}
        return partial(user.set_state, room_id, "m.room.member", user.user_id, content)


def growth_of(before: Stock, after: Stock, count: int) -> dict[str, float]:
    """Bytes per event by table, the largest first, without tables that did not grow."""
    grown = {name: (size - before.tables.get(name, 0)) / count for name, size in after.tables.items()}
    return dict(sorted(((n, g) for n, g in grown.items() if g > 0), key=lambda item: -item[1]))
