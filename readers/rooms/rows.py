"""Events as the queries give them, and their client form.

Invariant: an event is rendered as its redaction leaves it, and so is what it says of the event it replaced; the rendered pieces are
kept under everything that they depend on, so that a kept piece never becomes wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from matrix.events import Event
from matrix.room_versions import RoomVersion
from readers.sync.event_bytes import client_event, members_of, unsigned_members

SQL: Final = Queries("readers.rooms", "rooms.sql")

MOST_BYTES: Final = 8 << 20
"""Rendered bytes kept per process."""

Key = tuple[str, int, str | None, bool, bool]
"""Event id, the length of what the log has of it (scrubbing shortens that), its redaction, whether the event that it replaced is
redacted, and whether its redaction is."""

Pieces = tuple[bytes, bytes]
"""The members of the client form, and those of its `unsigned` that are everybody's."""


class Row:
    """An event of a room's timeline, with its place: a row of the queries that select events."""

    __slots__ = (
        "annotation",
        "device_id",
        "event_id",
        "json",
        "line",
        "position",
        "redaction",
        "sender",
        "state_key",
        "timeline",
        "txn_id",
        "type",
    )

    def __init__(self, columns: Sequence[Any]) -> None:
        self.timeline: int
        self.position: int
        self.line: int
        self.annotation: str | None
        self.event_id: str
        self.type: str
        self.state_key: str | None
        self.sender: str
        self.device_id: str | None
        self.txn_id: str | None
        self.json: str
        self.redaction: str | None
        (
            self.timeline,
            self.position,
            self.line,
            self.annotation,
            self.event_id,
            self.type,
            self.state_key,
            self.sender,
            self.device_id,
            self.txn_id,
            self.json,
            self.redaction,
        ) = columns

    def event(self, version: RoomVersion) -> Event:
        """The event parsed, as it was before any redaction."""
        return Event.from_pdu(orjson.loads(self.json), version, self.event_id)

    @property
    def content(self) -> dict[str, Any]:
        """The content as it was before any redaction."""
        content: dict[str, Any] = orjson.loads(self.json)["content"]
        return content

    def transaction_of(self, user_id: str, device_id: str | None) -> str | None:
        """The transaction id, if it was this device that sent the event."""
        if self.txn_id is None or self.sender != user_id or self.device_id != device_id:
            return None
        return unsafe(self.txn_id)


class Forms:
    """Rendered events, the least recently used dropped first; bounded by bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._pieces: OrderedDict[Key, Pieces] = OrderedDict()
        self._bytes = 0
        self._most_bytes = most_bytes

    def get(self, key: Key) -> Pieces | None:
        """The pieces under a key, if they are kept."""
        pieces = self._pieces.get(key)
        if pieces is not None:
            self._pieces.move_to_end(key)
        return pieces

    def put(self, key: Key, pieces: Pieces) -> None:
        """Keeps pieces."""
        if key in self._pieces:
            return
        self._pieces[key] = pieces
        self._bytes += _size(pieces)
        while self._bytes > self._most_bytes:
            self._bytes -= _size(self._pieces.popitem(last=False)[1])

    async def pieces_of(
        self, connection: AsyncConnection, rows: Iterable[Row], version: RoomVersion, room_id: str
    ) -> dict[str, Pieces]:
        """The pieces of events of one room by event id; asks the database only about redactions that take part."""
        found: dict[str, Pieces] = {}
        lacking: list[tuple[Row, dict[str, Any] | None]] = []
        asked: set[str] = set()
        for row in rows:
            plain = row.redaction is None and row.state_key is None
            if plain:
                pieces = self.get((row.event_id, len(row.json), None, False, False))
                if pieces is None:
                    pieces = (members_of(row.json.encode(), row.event_id), b"")
                    self.put((row.event_id, len(row.json), None, False, False), pieces)
                found[row.event_id] = pieces
                continue
            notes: dict[str, Any] | None = None
            if row.state_key is not None and row.annotation is not None:
                notes = orjson.loads(row.annotation)
                if "prev_content" in notes:
                    asked.add(notes["replaces"])
            if row.redaction is not None:
                asked.add(row.event_id)
            lacking.append((row, notes))
        redactions = await _redactions(connection, asked) if asked else {}
        for row, notes in lacking:
            # A later redaction reaches what was noted of the replaced event, too.
            hidden = notes is not None and notes.get("replaces") in redactions
            redaction = redactions.get(row.event_id) if row.redaction is not None else None
            key = (row.event_id, len(row.json), row.redaction, hidden, redaction is not None and redaction.is_redacted)
            pieces = self.get(key)
            if pieces is None:
                because = None
                if redaction is not None and redaction.json is not None:
                    # Somebody may have redacted the redaction, for the reason it gives.
                    pruned = version if redaction.is_redacted else None
                    because = client_event(
                        members_of(redaction.json.encode(), redaction.event_id, pruned), room_id=room_id
                    )
                members = members_of(row.json.encode(), row.event_id, None if row.redaction is None else version)
                if notes is not None and (hidden or row.redaction is not None):
                    notes = {name: value for name, value in notes.items() if name != "prev_content"}
                pieces = (members, unsigned_members(notes, because))
                self.put(key, pieces)
            found[row.event_id] = pieces
        return found


def _size(pieces: Pieces) -> int:
    return len(pieces[0]) + len(pieces[1]) + 400


class Redaction(NamedTuple):
    """The event that redacted another one; `json` is None when the log has dropped it."""

    event_id: str
    json: str | None
    is_redacted: bool


async def _redactions(connection: AsyncConnection, targets: set[str]) -> dict[str, Redaction]:
    cursor = await connection.execute(SQL["redactions"], {"targets": list(targets)})
    return {target: Redaction(*rest) for target, *rest in await cursor.fetchall()}
