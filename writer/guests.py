"""Guests: the rooms they may be in.

Invariant: a guest of this server is in no room that does not let guests in, but for as long as it takes to look: at once when the
room's `m.room.guest_access` is changed here, within `LOOK_SECONDS` when another server has changed it.
Source: client-server API, "Guest access".
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import psycopg
import structlog

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.standing import end, stand
from matrix.errors import MatrixError
from writer.drafts import Draft
from writer.log_writer import LogWriter

log = structlog.get_logger(__name__)
SQL = Queries("writer", "guests.sql")

GUEST_ACCESS = ("m.room.guest_access", "")
LOOK_SECONDS = 60.0
MOST_ROOMS = 1000


def lets_guests_in(content: dict[str, Any] | None) -> bool:
    """Whether the content of a room's `m.room.guest_access` lets guests join; without one they may not."""
    return content is not None and content.get("guest_access") == "can_join"


class Guests:
    """Takes guests out of rooms that no longer let them in; `async with` it to look regularly."""

    def __init__(self, pool: Pool, writer: LogWriter) -> None:
        self._pool = pool
        self._log = writer
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Guests:
        self._task = stand(self._run, "guests")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)

    async def expel(self, room_id: str | None = None) -> None:
        """Makes guests leave a room that does not let them in, or all such rooms."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["guests_in_rooms"], {"room_id": room_id, "most": MOST_ROOMS})
            rows = await cursor.fetchall()
        for found, user_ids, pdu in rows:
            if lets_guests_in(None if pdu is None else orjson.loads(pdu)["content"]):
                continue
            for user_id in user_ids:
                try:
                    content = {"membership": "leave"}
                    await self._log.send([Draft(found, user_id, "m.room.member", content, state_key=user_id)])
                except MatrixError as error:
                    log.info("a guest could not leave", room_id=found, user_id=user_id, error=str(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.expel()
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("guests were not looked after", error=str(error).strip())
