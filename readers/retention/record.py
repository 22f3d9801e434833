"""The record of what leaves the log, and the lock that lets one work at a time.

Invariant: nothing is taken out without a row of `eventlog.erasures` that was committed before; a row without an end is taken up
again by whoever does the same next.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from psycopg import AsyncConnection

from eventlog.faults import Failure, Policy
from eventlog.queries import Queries

SQL: Final = Queries("readers.retention", "retention.sql")

Action = Literal["partition", "policy", "history", "room", "redactions", "user"]

PART: Final = 200
"""Entries that one transaction takes out, scrubs or copies: some hundred kilobytes."""


class Busy(Failure):
    """Somebody else takes things out of the log."""

    policy = Policy.STOP


@dataclass(slots=True)
class Record:
    """One row of `eventlog.erasures`, counted up as the work goes on."""

    connection: AsyncConnection
    id: int
    events: int = 0
    kept: int = 0
    bytes: int = 0

    @classmethod
    async def begin(
        cls, connection: AsyncConnection, action: Action, subject: str, by: str, detail: dict[str, Any]
    ) -> Record:
        """Notes that it begins, or that what was broken off is taken up."""
        parameters = {"action": action, "subject": subject, "by": by, "detail": orjson.dumps(detail).decode()}
        row = await (await connection.execute(SQL["begin_record"], parameters)).fetchone()
        assert row is not None
        return cls(connection, row[0])

    async def count(self, *, events: int = 0, kept: int = 0, freed: int = 0) -> None:
        """Adds to what has left, what was kept, and the bytes that were freed."""
        self.events += events
        self.kept += kept
        self.bytes += freed
        parameters = {"id": self.id, "events": events, "kept": kept, "bytes": freed}
        await self.connection.execute(SQL["count_record"], parameters)

    async def end(self) -> None:
        """Notes that it is done."""
        await self.connection.execute(SQL["end_record"], {"id": self.id})


@contextlib.asynccontextmanager
async def alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """Holds the lock on taking things out of the log; raises Busy when another one has it."""
    row = await (await connection.execute(SQL["lock"])).fetchone()
    if row is None or not row[0]:
        raise Busy("something else is taking entries out of the log", "try again when it has finished")
    try:
        yield
    finally:
        if not connection.broken:
            await connection.execute(SQL["unlock"])
