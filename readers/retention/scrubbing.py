"""Content that goes while its event stays: what was redacted, and what an erased user said.

Invariant: an event keeps its id, its place, and all that auth rules and room state read of it: what is left is its redacted form
(matrix.redaction). An output that repeats the content of the state event it replaced loses it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.settings import Retention
from matrix.canonical import encode_canonical
from matrix.redaction import redact
from matrix.room_versions import ROOM_VERSIONS
from readers.retention.record import PART, SQL


class Content(NamedTuple):
    """An event with the version of its room."""

    entry: int
    json: str
    room_version: str


async def scrub(connection: AsyncConnection, events: Sequence[Content]) -> int:
    """Scrubs events, and what outputs repeat of them; returns how many changed. Wants to be in a transaction."""
    if not events:
        return 0
    entries = [one.entry for one in events]
    documents = [_redacted(one) for one in events]
    row = await (await connection.execute(SQL["scrub"], {"entries": entries, "documents": documents})).fetchone()
    assert row is not None
    rooms = [room for (room,) in await (await connection.execute(SQL["rooms_of"], {"entries": entries})).fetchall()]
    cursor = await connection.execute(SQL["successors"], {"entries": entries, "rooms": rooms})
    repeated = {entry: _without_content(annotation) for entry, annotation in await cursor.fetchall()}
    if repeated:
        parameters = {"entries": list(repeated), "annotations": list(repeated.values())}
        await connection.execute(SQL["scrub_notes"], parameters)
    changed: int = row[0]
    return changed


async def scrub_redactions(connection: AsyncConnection, settings: Retention) -> int:
    """Scrubs what was redacted long enough ago; returns how many events changed."""
    changed = 0
    while settings.redacted_days:
        cursor = await connection.execute(SQL["unscrubbed"], {"days": settings.redacted_days, "most": PART})
        rows = await cursor.fetchall()
        if not rows:
            break
        async with connection.transaction():
            part = await scrub(connection, [Content(*row[1:]) for row in rows])
            await connection.execute(SQL["redactions_scrubbed"], {"targets": [row[0] for row in rows]})
            if part:
                parameters = {"action": "redactions", "subject": "", "events": part, "kept": 0}
                await connection.execute(SQL["count_today"], parameters)
        changed += part
    return changed


def _redacted(event: Content) -> str:
    pdu: dict[str, Any] = orjson.loads(event.json)
    return encode_canonical(redact(pdu, ROOM_VERSIONS[event.room_version]), strict=False).decode()


def _without_content(annotation: str) -> str:
    notes: dict[str, Any] = orjson.loads(annotation)
    notes.pop("prev_content", None)
    return orjson.dumps(notes).decode()
