"""Bytes per message and per state change: the growth of the database on disk, and the WAL written.

A checkpoint before and after makes sizes comparable; the WAL so includes the first full image of every page touched, for both
servers alike. Growth of single tables goes into the JSON file, and the state tables' part of it into a figure of its own.
"""

import asyncio
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial

from bin.benchmark.cluster import Database
from bin.benchmark.row import Figure, Row, Sample, Scale

SETTLE_SECONDS = 3.0
"""For what the server does after its answer."""

SENDERS = 4


@dataclass(frozen=True, slots=True)
class Stock:
    """The database at one moment, in bytes."""

    size: float
    wal: float
    tables: dict[str, int]


async def stock(database: Database) -> Stock:
    await asyncio.sleep(SETTLE_SECONDS)
    wal = await database.number("wal_position")
    await database.ask("checkpoint")
    size = await database.number("database_size")
    tables = {str(name): int(size) for name, size in await database.ask("table_sizes")}
    return Stock(size, wal, tables)


class Bytes(Row):
    """Messages by four senders in one room, each with one request in flight, then state changes one at a time."""

    name = "bytes"
    measure_seconds = 600.0

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        return (
            Figure("bytes-message", "bytes in the database per message", "B"),
            Figure("wal-message", "bytes of WAL per message", "B"),
            Figure("bytes-state", "bytes in the database per state change", "B"),
            Figure("bytes-state-tables", "of them in tables of room state", "B"),
            Figure("wal-state", "bytes of WAL per state change", "B"),
        )

    async def prepare(self) -> None:
        self.users = await self.server.register(self.name, SENDERS)

    async def measure(self, number: int) -> Sample:
        database = self.server.database
        keys = [figure.key for figure in self.figures(self.scale)]
        if database is None:
            return Sample(dict.fromkeys(keys, None))
        room_id = await self.users[0].create_room(preset="public_chat")
        for user in self.users[1:]:
            await user.join(room_id)
        before = await stock(database)
        # The WAL of the checkpoint itself belongs to nobody: read again after it.
        before_wal = await database.number("wal_position")
        sends = [
            (self.users[n % SENDERS], f"message {n:06d} with forty characters...")
            for n in range(self.scale.stored_messages)
        ]
        await self.all("messages", [partial(user.send, room_id, body) for user, body in sends], SENDERS)
        between = await stock(database)
        between_wal = await database.number("wal_position")
        changes = [
            partial(
                self.users[0].set_state, room_id, "org.example.sensor", f"sensor-{n}", {"reading": n, "unit": "kelvin"}
            )
            for n in range(self.scale.stored_states)
        ]
        await self.all("state events", changes, 1)
        after = await stock(database)
        messages, states = self.scale.stored_messages, self.scale.stored_states
        growth = {
            "message": growth_of(before, between, messages),
            "state": growth_of(between, after, states),
        }
        state_tables = sum(
            per for name, per in growth["state"].items() if any(fnmatch(name, p) for p in self.server.state_tables)
        )
        return Sample(
            {
                "bytes-message": (between.size - before.size) / messages,
                "wal-message": (between.wal - before_wal) / messages,
                "bytes-state": (after.size - between.size) / states,
                "bytes-state-tables": state_tables if self.server.state_tables else None,
                "wal-state": (after.wal - between_wal) / states,
            },
            {"bytes_by_table": growth},
        )


def growth_of(before: Stock, after: Stock, count: int) -> dict[str, float]:
    """Bytes per event by table, the largest first, tables that did not grow left out."""
    grown = {name: (size - before.tables.get(name, 0)) / count for name, size in after.tables.items()}
    return dict(sorted(((n, g) for n, g in grown.items() if g > 0), key=lambda item: -item[1]))
