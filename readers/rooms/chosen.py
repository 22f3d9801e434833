"""Events chosen by entry, of any rooms, as far as one user may see them.

Invariant: what is handed out the user may see now; what was redacted is left out, and so is what comes from a user who asked to be
forgotten and whom the reader did not meet in the room. Two round trips, however many rooms there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from psycopg import AsyncConnection

from eventlog.queries import Queries
from readers.rooms.access import Access
from readers.rooms.rows import Row
from readers.rooms.timeline import Timelines, visible, withheld

SQL: Final = Queries("readers.rooms", "chosen.sql")


class Chosen:
    """What one user may see, gathered over one request."""

    def __init__(self, timelines: Timelines, user_id: str) -> None:
        self._timelines = timelines
        self._user_id = user_id
        self.accesses: dict[str, Access] = {}
        """By room id, of the rooms looked at."""

    async def see(
        self, connection: AsyncConnection, entries: Mapping[int, str], told: Collection[int] = ()
    ) -> dict[int, tuple[Row, Access]]:
        """Of entries with their rooms' ids those that the user may see, and those of which they were `told` otherwise."""
        if not entries:
            return {}
        # The events come first: an access that is read later knows of every change before them.
        cursor = await connection.execute(SQL["events"], {"entries": list(entries)})
        rows = {entry: Row(columns) for entry, *columns in await cursor.fetchall()}
        await self._learn(connection, set(entries.values()) - self.accesses.keys())
        by_room: dict[str, dict[str, int]] = {}
        for entry, row in rows.items():
            if row.redaction is None and entries[entry] in self.accesses:
                by_room.setdefault(entries[entry], {})[row.event_id] = entry
        seen: dict[int, tuple[Row, Access]] = {}
        for room_id, of_room in by_room.items():
            access = self.accesses[room_id]
            events = sorted((rows[entry] for entry in of_room.values()), key=lambda row: row.timeline)
            await self._timelines.learn_lines(connection, access, events)
            shown = visible(access, events)
            shown += [row for row in events if of_room[row.event_id] in told and row not in shown]
            hidden = {row.event_id for row in await withheld(connection, access, shown)}
            seen |= {of_room[row.event_id]: (row, access) for row in shown if row.event_id not in hidden}
        return seen

    async def _learn(self, connection: AsyncConnection, rooms: Iterable[str]) -> None:
        wanted = list(rooms)
        if not wanted:
            return
        cursor = await connection.execute(SQL["accesses"], {"user_id": self._user_id, "room_ids": wanted})
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for room_id, *columns in await cursor.fetchall():
            rows.setdefault(room_id, []).append(tuple(columns))
        self.accesses |= {room_id: Access(self._user_id, room_id, of_room) for room_id, of_room in rows.items()}
