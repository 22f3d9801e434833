"""The room server's tables held against the log they were made from, and made again from it.

Invariant: what a table must say is computed in SQL from `eventlog.events` and `eventlog.outputs` alone; rows whose part of the log
retention has dropped are their own record and stand. A table is changed only while no room server runs, in transactions of well
under a megabyte, and only where it is wrong.

Not derivable, and so not here: `heads.generation` (how often a chain broke), state lines other than 0 and resolutions (outcomes of
the resolution algorithm, written once), and what is no projection: deferred, attempts, quarantine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import orjson
from psycopg import AsyncConnection

from eventlog.faults import Failure, Policy
from eventlog.queries import Queries

SQL = Queries("roomserver", "projections.sql")
LAST_VALUES = Queries("roomserver", "last_values.sql")
MENDING = Queries("roomserver", "mending.sql")

PROJECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "rooms": ("nid",),
    "state": ("room", "type", "state_key", "valid_from"),
    "memberships": ("user_id", "room"),
    "heads": ("room",),
    "receipts": ("room", "user_id", "receipt_type", "thread_id"),
    "account_data": ("user_id", "room_id", "type"),
    "profiles": ("user_id", "field"),
    "presence": ("user_id",),
    "user_keys": ("user_id", "usage", "key_id"),
    "device_lists": ("user_id",),
    "to_device": ("user_id", "device_id", "shard", "position"),
    "aliases": ("alias",),
    "directory": ("room_id",),
    "redactions": ("target",),
    "relations": ("target", "rel_type", "timeline", "event_id"),
    "early_redactions": ("target", "redaction"),
    "reports": ("entry",),
    "threads": ("room", "root"),
    "activity_users": ("sender", "day", "room"),
    "activity_rooms": ("room", "day"),
    "activity_days": ("day",),
}
"""Tables of schema roomserver by name (and those of schema activity), with their keys. Whatever names a room comes after `rooms`,
and what is made of another one after that."""

DERIVED: Final = {
    "threads": "roomserver.threads",
    "activity_users": "activity.users",
    "activity_rooms": "activity.rooms",
    "activity_days": "activity.days",
}
"""Those that follow others (by triggers) or are counted aside (by maintenance), with their tables."""

OF_USERS: Final = frozenset(
    (
        "account_data",
        "profiles",
        "presence",
        "user_keys",
        "device_lists",
        "to_device",
        "aliases",
        "reports",
        "activity_days",
    )
)
"""Those that cannot be looked at a room at a time."""

# What one transaction of a rebuild changes at most.
MAX_ROWS = 500
MAX_BYTES = 512 << 10

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what the log says. `stored` is None when it is missing, `rebuilt` when it should not be there."""

    projection: str
    key: Row
    stored: Row | None
    rebuilt: Row | None

    def __str__(self) -> str:
        key = ", ".join(f"{name} {value}" for name, value in self.key.items())
        if self.stored is None:
            return f"{self.projection}: missing: {key}"
        if self.rebuilt is None:
            return f"{self.projection}: should not be there: {key}"
        wrong = ", ".join(
            f"{name} is {self.stored[name]!r}, should be {value!r}"
            for name, value in self.rebuilt.items()
            if self.stored[name] != value
        )
        return f"{self.projection}: {key}: {wrong}"


class RoomServerRuns(Failure):
    """A room server holds a shard."""

    policy = Policy.STOP


async def differences(
    connection: AsyncConnection, *, projection: str | None = None, room_id: str | None = None, most: int = 100
) -> list[Difference]:
    """Where stored projections differ from rebuilt ones, at most `most` of each; one or all of them.

    With `room_id` only what belongs to that room is looked at. Room servers may run meanwhile: each projection is compared in one
    statement. Wants a login that may read both schemas and `history`; reads all of the log. KeyError for an unknown projection.
    """
    room = None
    if room_id is not None:
        row = await (await connection.execute(SQL["room"], {"room_id": room_id})).fetchone()
        if row is None:
            return []
        room = row[0]
    found: list[Difference] = []
    for name in PROJECTIONS if projection is None else (projection,):
        if room is None or name not in OF_USERS:
            cursor = await connection.execute(_differing(name), {"room": room, "most": most})
            found += [_difference(name, stored, rebuilt) for stored, rebuilt in await cursor.fetchall()]
    return found


async def rebuild(connection: AsyncConnection, projection: str) -> int:
    """Makes a projection what the log says; the number of rows that were wrong.

    Wants an autocommit connection past any pooler, of a login that may write the tables. Can be broken off and begun again.
    Raises RoomServerRuns, psycopg.Error; KeyError for an unknown projection.
    """
    count = 0
    async with _alone(connection), connection.cursor("differing", withhold=True) as cursor:
        await cursor.execute(_differing(projection), {"room": None, "most": None})
        stored: list[str] = []
        rebuilt: list[str] = []
        size = 0
        async for before, after in cursor:
            count += 1
            (stored if after is None else rebuilt).append(before if after is None else after)
            size += len(after or before)
            if len(stored) + len(rebuilt) >= MAX_ROWS or size >= MAX_BYTES:
                await _mend(connection, projection, stored, rebuilt)
                stored, rebuilt, size = [], [], 0
        await _mend(connection, projection, stored, rebuilt)
    return count


def _differing(projection: str) -> LiteralString:
    return LAST_VALUES[projection] if projection in LAST_VALUES.names() else SQL[projection]


def _difference(projection: str, stored: str | None, rebuilt: str | None) -> Difference:
    before: Row | None = None if stored is None else orjson.loads(stored)
    after: Row | None = None if rebuilt is None else orjson.loads(rebuilt)
    there = before or after or {}
    return Difference(projection, {name: there[name] for name in PROJECTIONS[projection]}, before, after)


async def _mend(connection: AsyncConnection, projection: str, remove: list[str], put: list[str]) -> None:
    async with connection.transaction():
        for verb, rows in (("remove", remove), ("clear", put), ("put", put)):
            if rows and (name := f"{verb}_{projection}") in MENDING.names():
                await connection.execute(MENDING[name], {"rows": f"[{','.join(rows)}]"})


@contextlib.asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """Holds the locks of all room servers."""
    taken = [row[0] for row in await (await connection.execute(SQL["lock"])).fetchall()]
    try:
        if not all(taken):
            raise RoomServerRuns("a room server is running", "stop Walden and run this again, then start it")
        yield
    finally:
        if not connection.broken:
            await connection.execute(SQL["unlock"])
