"""Entries that wait for others, in memory as in roomserver.deferred.

Invariant: an entry is deferred in the transaction that passes it over and leaves the table in the one that judges it, so that a
restart finds the same entries waiting for the same events and the same rooms standing still; what is ready by then is judged first.
"""

from __future__ import annotations

from collections import deque

from psycopg import AsyncConnection

from roomserver.effects import Effects
from roomserver.entries import Entry
from roomserver.judge import NO_ROOM
from roomserver.store import SQL

# Beyond this an entry of another server is not kept waiting: its sender offers it again.
MAX_WAITING = 20_000


class Deferrals:
    """What waits, by the event ids it waits for."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self._waiting: dict[int, tuple[Entry, set[str]]] = {}
        self._by_event: dict[str, set[int]] = {}
        # Rooms that stand still for a resolution, with their entries in order, the one being resolved first.
        self._rooms: dict[str, deque[Entry]] = {}
        self._ready: list[Entry] = []

    async def load(self, connection: AsyncConnection) -> None:
        """Reads what waits from the table."""
        self._waiting.clear()
        self._by_event.clear()
        self._rooms.clear()
        self._ready.clear()
        cursor = await connection.execute(SQL["deferred"], {"shard": self._shard, "create": NO_ROOM})
        for reason, missing, *columns in await cursor.fetchall():
            entry = Entry(*columns)
            assert entry.room_id is not None
            if reason == "resolution" or (reason == "order" and entry.room_id in self._rooms):
                self._rooms.setdefault(entry.room_id, deque()).append(entry)
            elif missing:
                self._note(entry, set(missing))
            else:
                self._ready.append(entry)

    def take_ready(self) -> list[Entry]:
        """Entries that waited when they were read and do not have to any more, the oldest first."""
        ready, self._ready = self._ready, []
        return ready

    def _note(self, entry: Entry, missing: set[str]) -> None:
        self._waiting[entry.id] = (entry, missing)
        for event_id in missing:
            self._by_event.setdefault(event_id, set()).add(entry.id)

    def holds(self, entry: int) -> bool:
        """Whether the entry waits."""
        return entry in self._waiting or any(entry == e.id for queue in self._rooms.values() for e in queue)

    def blocks(self, room_id: str) -> bool:
        """Whether everything in a room must wait; a missing event holds up only what rests on it."""
        return room_id in self._rooms

    def blocked_rooms(self) -> list[str]:
        """The rooms that stand still."""
        return list(self._rooms)

    def first(self, room_id: str) -> Entry:
        """The entry that a room stands still for."""
        return self._rooms[room_id][0]

    def stands_for(self, entry: Entry) -> bool:
        """Whether the entry's room stands still for its resolution."""
        return entry.room_id in self._rooms and self._rooms[entry.room_id][0].id == entry.id

    def unblock(self, room_id: str) -> list[Entry]:
        """Lets a room go on: the entries that waited behind the first, to be judged next."""
        _, *rest = self._rooms.pop(room_id)
        return rest

    def block(self, entry: Entry, effects: Effects) -> None:
        """Lets an entry wait for its room's resolution; the first of a room is the one that needs it."""
        assert entry.room_id is not None
        queue = self._rooms.setdefault(entry.room_id, deque())
        reason = "order" if queue else "resolution"
        queue.append(entry)
        effects.put("deferred", ("entry",), entry=entry.id, room_id=entry.room_id, reason=reason, missing=[])

    def defer(self, entry: Entry, missing: list[str], effects: Effects) -> bool:
        """Lets an entry wait for events; False when too many wait and it was rejected."""
        if len(self._waiting) >= MAX_WAITING:
            effects.output(
                effects.next_position(), entry.kind, entry.id, "r", reason="Too many events wait for missing ones."
            )
            return False
        self._note(entry, set(missing))
        effects.put(
            "deferred", ("entry",), entry=entry.id, room_id=entry.room_id, reason="missing", missing=sorted(missing)
        )
        return True

    def released(self, event_id: str | None) -> list[Entry]:
        """The entries that waited for an event, now that it is judged; they are to be judged next."""
        if event_id is None or event_id not in self._by_event:
            return []
        ready = []
        for waiting in sorted(self._by_event.pop(event_id)):
            entry, missing = self._waiting[waiting]
            missing.discard(event_id)
            if not missing:
                del self._waiting[waiting]
                ready.append(entry)
        return ready
