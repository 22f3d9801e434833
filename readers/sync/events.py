"""Events by entry, rendered once: what several responses of this process share beyond the recent past.

Invariant: an event whose redaction has been applied is never answered as it was before, also when it was being read from the
tables in that moment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from psycopg import AsyncConnection

from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from readers.sync.event_bytes import client_event, members_of
from readers.sync.feed import SQL
from readers.sync.outputs import Output

MOST_BYTES: Final = 64 << 20
REMEMBERED: Final = 1_000
"""Redactions remembered for events that are being read meanwhile."""


class Events:
    """Events read from the tables, newest use last; bounded by bytes. `versions` are the room versions known, by room number."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.versions: dict[int, RoomVersion] = {}
        self._events: OrderedDict[int, Output] = OrderedDict()
        self._entries: dict[str, int] = {}
        self._bytes = 0
        self._most_bytes = most_bytes
        self._redacted: OrderedDict[str, None] = OrderedDict()

    def learn_version(self, nid: int, version: str) -> None:
        """Notes the version of a room, so that redactions in it can be rendered as they arrive."""
        if nid not in self.versions and version in ROOM_VERSIONS:
            if len(self.versions) >= 200_000:
                self.versions.clear()
            self.versions[nid] = ROOM_VERSIONS[version]

    def redacted(self, event_id: str) -> None:
        """A redaction took effect: the event is read again when it is wanted again."""
        self._redacted[event_id] = None
        if len(self._redacted) > REMEMBERED:
            self._redacted.popitem(last=False)
        entry = self._entries.pop(event_id, None)
        if entry is not None:
            self._bytes -= self._events.pop(entry).size

    async def fetch(self, connection: AsyncConnection, entries: Iterable[int]) -> dict[int, Output]:
        """Events by entry id; those that are nowhere are absent."""
        found: dict[int, Output] = {}
        lacking: list[int] = []
        for entry in entries:
            known = self._events.get(entry)
            if known is None:
                lacking.append(entry)
            else:
                self._events.move_to_end(entry)
                found[entry] = known
        if lacking:
            before = set(self._redacted)
            cursor = await connection.execute(SQL["events"], {"ids": lacking})
            for row in await cursor.fetchall():
                output = Output.of_row(row)
                if row[18] is not None and row[19] is not None:
                    version = ROOM_VERSIONS[row[20]]
                    output.redact(client_event(members_of(row[19].encode(), row[18])), version)
                found[output.entry] = output
                if output.redaction is None and output.event_id in self._redacted and output.event_id not in before:
                    continue
                self.add(output)
        return found

    def add(self, output: Output) -> None:
        """Keeps an event, the longest unused ones go."""
        if output.entry in self._events:
            return
        self._events[output.entry] = output
        self._entries[output.event_id] = output.entry
        self._bytes += output.size
        while self._bytes > self._most_bytes:
            _, gone = self._events.popitem(last=False)
            self._entries.pop(gone.event_id, None)
            self._bytes -= gone.size
