"""Typing, receipts and read markers.

Invariant: only who is in a room says there that they type or have read. Source: client-server API, "Typing notifications",
"Receipts", "Fully read markers".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe
from eventlog.sessions import Session
from matrix.errors import bad_json, invalid_param, missing_param
from matrix.identifiers import fits, is_event_id
from matrix.relations import HOPS, THREAD, relation_of, thread_of
from writer.log_writer import LogWriter
from writer.requests import Body, check_own, check_room_id, integer, read_body, session_of, text
from writer.rooms_of_user import check_joined

SQL = Queries("writer", "events.sql")

TYPING_MS = 30_000
MOST_TYPING_MS = 120_000
RECEIPTS = ("m.read", "m.read.private")
FULLY_READ = "m.fully_read"


class Typing:
    """PUT /rooms/{room_id}/typing/{user_id}."""

    def __init__(self, pool: Pool, log: LogWriter) -> None:
        self._pool = pool
        self._log = log

    async def on_put(self, req: Request, resp: Response, room_id: str, user_id: str) -> None:
        """Says that the requester types, or stopped."""
        session, body = session_of(req), await read_body(req)
        check_own(session, user_id)
        check_room_id(room_id)
        typing = body.get("typing")
        if typing is None:
            raise missing_param("typing is missing.")
        if not isinstance(typing, bool):
            raise bad_json("typing must be a boolean.")
        timeout = min(max(integer(body, "timeout", TYPING_MS), 0), MOST_TYPING_MS)
        await check_joined(self._pool, user_id, room_id)
        await self._log.typing(room_id, user_id, typing and timeout > 0, timeout)
        resp.media = {}


class Receipts:
    """POST /rooms/{room_id}/receipt/{receipt_type}/{event_id} and /rooms/{room_id}/read_markers."""

    def __init__(self, pool: Pool, log: LogWriter) -> None:
        self._pool = pool
        self._log = log

    async def on_post(self, req: Request, resp: Response, room_id: str, receipt_type: str, event_id: str) -> None:
        """Says how far the requester has read, in a thread or in the room."""
        session, body = session_of(req), await read_body(req, optional=True)
        check_room_id(room_id)
        _check_event_id(event_id)
        thread_id = _thread_id(body)
        if receipt_type == FULLY_READ:
            if thread_id:
                raise invalid_param("m.fully_read has no threads.")
        elif receipt_type not in RECEIPTS:
            raise invalid_param("There is no such type of receipt.")
        await check_joined(self._pool, session.user_id, room_id)
        if receipt_type == FULLY_READ:
            await self._mark(session, room_id, event_id)
        else:
            if thread_id:
                await self._check_thread(room_id, event_id, thread_id)
            await self._receipt(session, room_id, receipt_type, event_id, thread_id)
        resp.media = {}

    async def on_post_markers(self, req: Request, resp: Response, room_id: str) -> None:
        """Moves the read marker, and receipts with it."""
        session, body = session_of(req), await read_body(req, optional=True)
        check_room_id(room_id)
        wanted = {name: _check_event_id(found) for name in (FULLY_READ, *RECEIPTS) if (found := text(body, name))}
        await check_joined(self._pool, session.user_id, room_id)
        changes: list[Coroutine[Any, Any, None]] = [
            self._mark(session, room_id, event_id)
            if name == FULLY_READ
            else self._receipt(session, room_id, name, event_id, "")
            for name, event_id in wanted.items()
        ]
        await asyncio.gather(*changes)
        resp.media = {}

    async def _receipt(self, session: Session, room_id: str, receipt_type: str, event_id: str, thread_id: str) -> None:
        content = {
            "room_id": room_id,
            "event_id": event_id,
            "receipt_type": receipt_type,
            "thread_id": thread_id,
            "ts": int(time.time() * 1000),
        }
        await self._log.append_entry(type="m.receipt", user_id=session.user_id, content=content, room_id=room_id)

    async def _check_thread(self, room_id: str, event_id: str, thread_id: str) -> None:
        """M_INVALID_PARAM if an event is not related to a thread.

        What is in the main timeline and about the root, as a reaction, is related to the thread as well: "if the event_id is
        not related to the thread_id" asks for no more.
        """
        contents: dict[str, Any] = {}
        wanted, top = event_id, ""
        async with self._pool.connection() as connection:
            for _ in range(HOPS + 1):
                key = {"event_id": safe(wanted), "room_id": room_id}
                row = await (await connection.execute(SQL["document"], key)).fetchone()
                if row is None:
                    break
                contents[wanted] = orjson.loads(row[0])["content"]
                relation = relation_of(contents[wanted])
                if relation is None:
                    top = wanted
                    break
                if relation[0] == THREAD:
                    break
                wanted = relation[1]
        if event_id not in contents or thread_id in (event_id, top):
            return  # Of what is not there, the room server says so.
        if thread_of(contents[event_id], lambda above: contents.get(above, {})) != thread_id:
            raise invalid_param("The event is not in this thread.")

    async def _mark(self, session: Session, room_id: str, event_id: str) -> None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["event"], {"event_id": event_id})).fetchone()
        if row is None or row[0] != room_id:
            # "The event MUST belong to the room."
            raise invalid_param("There is no such event in this room.")
        content = {"room_id": room_id, "type": FULLY_READ, "content": {"event_id": event_id}}
        await self._log.append_entry(type="account_data", user_id=session.user_id, content=content, room_id=room_id)


def _check_event_id(event_id: str) -> str:
    if not is_event_id(event_id):
        raise invalid_param("Not an event ID.")
    return event_id


def _thread_id(body: Body) -> str:
    """The thread of a receipt, empty for none."""
    thread_id = body.get("thread_id")
    if thread_id is None and "thread_id" not in body:
        return ""
    if not isinstance(thread_id, str) or not thread_id or not fits(thread_id) or "\0" in thread_id:
        raise invalid_param("thread_id must be a non-empty string.")
    return thread_id
