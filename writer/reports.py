"""Reports: rooms, events and users that somebody wants the people who run this server to look at.

Invariant: a report is kept until somebody removes it; `history.reports` shows it. Only who is in a room reports its events, and
anybody any room or user. Source: client-server API, "Reporting Content".
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import not_found, too_large
from matrix.identifiers import is_event_id, is_user_id
from writer.log_writer import LogWriter
from writer.rate_limits import RateLimits
from writer.requests import check_room_id, read_body, required_text, session_of, text

SQL = Queries("writer", "reports.sql")
MOST_REASON_BYTES = 10_000


class Reports:
    """POST /rooms/{room_id}/report, /rooms/{room_id}/report/{event_id}, /users/{user_id}/report."""

    def __init__(self, pool: Pool, log: LogWriter, limits: RateLimits) -> None:
        self._pool = pool
        self._log = log
        self._limits = limits

    async def on_post_room(self, req: Request, resp: Response, room_id: str) -> None:
        """Reports a room, whoever is in it; M_NOT_FOUND if it is not known here."""
        reason = required_text(await read_body(req), "reason")
        if not await self._is("room", room_id=check_room_id(room_id)):
            raise not_found("The room was not found.")
        await self._report(req, resp, reason, room_id=room_id)

    async def on_post_event(self, req: Request, resp: Response, room_id: str, event_id: str) -> None:
        """Reports an event of a room the requester is in; M_NOT_FOUND for any other."""
        reason = text(await read_body(req), "reason") or ""
        user_id = session_of(req).user_id
        check_room_id(room_id)
        if not is_event_id(event_id) or not await self._is(
            "event", room_id=room_id, event_id=event_id, user_id=user_id
        ):
            raise not_found("The event was not found or you are not joined to the room.")
        await self._report(req, resp, reason, room_id=room_id, event_id=event_id)

    async def on_post_user(self, req: Request, resp: Response, user_id: str) -> None:
        """Reports a user; M_NOT_FOUND for one whom nobody here has met."""
        reason = required_text(await read_body(req), "reason")
        if not is_user_id(user_id) or not await self._is("user", user_id=user_id):
            raise not_found("The user was not found.")
        await self._report(req, resp, reason, user_id=user_id)

    async def _is(self, query: str, **parameters: str) -> bool:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL[query], parameters)).fetchone()
        return row is not None and bool(row[0])

    async def _report(self, req: Request, resp: Response, reason: str, **about: Any) -> None:
        if len(reason.encode()) > MOST_REASON_BYTES:
            raise too_large(f"A reason may have {MOST_REASON_BYTES} bytes.")
        session = session_of(req)
        self._limits.take("message", session.user_id)
        await self._log.append_entry(type="report", user_id=session.user_id, content={"reason": reason, **about})
        resp.media = {}
