"""Redactions: PUT /rooms/{room_id}/redact/{event_id}/{txn_id}, and who may redact what.

Invariant: nobody here redacts what the auth rules leave open but the room's levels do not allow. Source: client-server API,
"Redactions".
"""

from __future__ import annotations

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from matrix.errors import forbidden, invalid_param, not_found, user_suspended
from matrix.identifiers import fits, is_event_id
from writer.drafts import Draft
from writer.guests import GUEST_ACCESS, Guests
from writer.log_writer import LogWriter
from writer.permissions import POWER_KEYS, may_redact_others, membership_of
from writer.rate_limits import RateLimits
from writer.requests import check_room_id, read_body, session_of, text

SQL = Queries("writer", "events.sql")


def check_txn_id(txn_id: str) -> str:
    """The transaction id; M_INVALID_PARAM unless it has 1 to 255 bytes."""
    if not txn_id or not fits(txn_id):
        raise invalid_param("A transaction ID has 1 to 255 bytes.")
    return txn_id


class Redacting:
    """Whether a user of this server may redact an event."""

    def __init__(self, pool: Pool, log: LogWriter) -> None:
        self._pool = pool
        self._log = log

    async def check(self, user_id: str, room_id: str, event_id: str, *, own_only: bool = False) -> str:
        """The type of an event that the user may redact.

        M_NOT_FOUND for an event that is not of this room, M_FORBIDDEN for one that the user may not redact.

        `own_only`: M_USER_SUSPENDED for what others have sent.
        The auth rules let a server's users redact each other's events; that they may not is for their server to see to.
        """
        view = await self._log.view(room_id, [*POWER_KEYS, ("m.room.member", user_id)])
        if membership_of(view.state.get(("m.room.member", user_id))) != "join":
            raise forbidden("You are not in this room.")
        row = None
        if is_event_id(event_id):
            async with self._pool.connection() as connection:
                row = await (await connection.execute(SQL["event"], {"event_id": event_id})).fetchone()
        if row is None or row[0] != room_id:
            raise not_found("There is no such event in this room.")
        _, event_type, state_key, sender = row
        if unsafe(event_type) == "m.room.create" and state_key == "":
            raise forbidden("The event that made the room cannot be redacted.")
        if sender != user_id and own_only:
            raise user_suspended()
        if sender != user_id and not may_redact_others(view, user_id):
            raise forbidden("You may not redact what others have sent here.")
        return unsafe(event_type)


class Redact:
    """PUT /rooms/{room_id}/redact/{event_id}/{txn_id}."""

    def __init__(self, log: LogWriter, redacting: Redacting, guests: Guests, limits: RateLimits) -> None:
        self._log = log
        self._guests = guests
        self._redacting = redacting
        self._limits = limits

    async def on_put(self, req: Request, resp: Response, room_id: str, event_id: str, txn_id: str) -> None:
        """Redacts an event of the requester's, or, with the level for it, of anybody."""
        session = session_of(req)
        self._limits.take("message", session.user_id)
        body = await read_body(req, optional=True)
        reason = text(body, "reason")
        check_room_id(room_id)
        event_type = await self._redacting.check(session.user_id, room_id, event_id, own_only=session.suspended)
        draft = Draft(
            room_id,
            session.user_id,
            "m.room.redaction",
            {} if reason is None else {"reason": reason},
            redacts=event_id,
            device_id=session.device_id,
            txn_id=check_txn_id(txn_id),
            txn_path=f"redact/{room_id}/{event_id}",
        )
        sent = await self._log.send([draft])
        if event_type == GUEST_ACCESS[0]:
            await self._guests.expel(room_id)
        resp.data = orjson.dumps({"event_id": sent[0].event_id})
