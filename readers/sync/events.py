"""Events by entry, rendered once: what several responses of this process share beyond the recent past.

Invariant: an event whose redaction has been applied is never answered as it was before, also when it was being read from the
tables in that moment.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from psycopg import AsyncConnection

from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from readers.sync.event_bytes import client_event, members_of
from readers.sync.feed import SQL
from readers.sync.outputs import Output

MOST_BYTES: Final = 8 << 20
STEP: Final = 2_000
"""Events read at a stretch before other tasks get a turn."""
REMEMBERED: Final = 1_000
"""Redactions remembered for events that are being read meanwhile."""


class Events:
    """Events read from the tables, newest use last; bounded by bytes. `versions` are the room versions known, by room number."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.versions: dict[int, RoomVersion] = {}
        self._events: OrderedDict[int, Output] = OrderedDict()
        self._entries: dict[str, int] = {}
        self._replacing: dict[str, set[int]] = {}
        self._bytes = 0
        self._most_bytes = most_bytes
        self._redacted: OrderedDict[str, None] = OrderedDict()

    def learn_version(self, nid: int, version: str) -> None:
        """Notes the version of a room, so that redactions in it can be rendered as they arrive."""
        if nid not in self.versions and version in ROOM_VERSIONS:
            if len(self.versions) >= 200_000:
                self.versions.clear()
            self.versions[nid] = ROOM_VERSIONS[version]

    async def know_versions(self, connection: AsyncConnection, rooms: Iterable[int]) -> None:
        """Brings the versions of rooms at hand: of one that a user has joined while being active it is not known yet."""
        lacking = [nid for nid in rooms if nid not in self.versions]
        if lacking:
            cursor = await connection.execute(SQL["room_versions"], {"rooms": lacking})
            for nid, version in await cursor.fetchall():
                self.learn_version(nid, version)

    def redacted(self, event_id: str) -> None:
        """A redaction took effect: the event is read again when it is wanted again, and so is what replaced it."""
        self._redacted[event_id] = None
        if len(self._redacted) > REMEMBERED:
            self._redacted.popitem(last=False)
        outdated = set(self._replacing.get(event_id, ()))
        if event_id in self._entries:
            outdated.add(self._entries[event_id])
        for entry in outdated:
            self._drop(self._events.pop(entry))

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
        await self.check(connection, found.values())
        for start in range(0, len(lacking), STEP):
            before = set(self._redacted)
            cursor = await connection.execute(SQL["events"], {"ids": lacking[start : start + STEP]})
            read: list[Output] = []
            for row in await cursor.fetchall():
                output = Output.of_row(row)
                if row[18] is not None:
                    output.redact(client_event(members_of(row[19].encode(), row[18])), ROOM_VERSIONS[row[20]])
                output.unchecked = replaced_by(output) is not None
                read.append(output)
            await self.check(connection, read)
            for output in read:
                found[output.entry] = output
                # What was redacted while it was read may have been read as it was before.
                if not self._redacted.keys() - before & {output.event_id, replaced_by(output)}:
                    self.add(output)
            await asyncio.sleep(0)
        return found

    def learn(self, output: Output) -> None:
        """Takes a state event from the stream. What it notes of the event it replaced may have been redacted before."""
        replaced = replaced_by(output)
        if replaced is not None:
            known = self._events.get(self._entries.get(replaced, 0))
            output.unchecked = known is None
            if known is not None and known.redaction is not None:
                output.redact_replaced()
        self.add(output)

    async def check(self, connection: AsyncConnection, outputs: Iterable[Output]) -> None:
        """Takes the noted content of redacted events from the outputs of those that replaced them."""
        unchecked = [output for output in outputs if output.unchecked]
        if unchecked:
            targets = {output.notes["replaces"] for output in unchecked}
            cursor = await connection.execute(SQL["redacted"], {"targets": list(targets)})
            redacted = {row[0] for row in await cursor.fetchall()}
            for output in unchecked:
                output.unchecked = False
                if output.notes["replaces"] in redacted:
                    output.redact_replaced()

    def add(self, output: Output) -> None:
        """Keeps an event, the longest unused ones go."""
        if output.entry in self._events:
            return
        self._events[output.entry] = output
        self._entries[output.event_id] = output.entry
        if (replaced := replaced_by(output)) is not None:
            self._replacing.setdefault(replaced, set()).add(output.entry)
        self._bytes += output.size
        while self._bytes > self._most_bytes:
            self._drop(self._events.popitem(last=False)[1])

    def _drop(self, output: Output) -> None:
        self._bytes -= output.size
        self._entries.pop(output.event_id, None)
        if (replaced := replaced_by(output)) is not None and (replacing := self._replacing.get(replaced)):
            replacing.discard(output.entry)
            if not replacing:
                del self._replacing[replaced]


def replaced_by(output: Output) -> str | None:
    """The state event whose content is noted with an output."""
    if output.state_key is None or output.annotation is None or "prev_content" not in output.notes:
        return None
    replaced: str = output.notes["replaces"]
    return replaced
