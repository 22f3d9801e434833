"""Presence in sync responses: whose changed among those who share a room with the user.

Invariant: a user who is active here knows of every change told to a room they are in since `User.heard_since`; what is older, and
everything for who is new to a room, is read from the table. A poll to which nothing happened asks nothing. Source: client-server
API, "Presence".
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from matrix.filters import EventFilter
from readers.sync.outputs import Output

SQL: Final = Queries("readers.sync", "presence.sql")
MOST_TOLD: Final = 1_000
"""Users whose presence one response tells: those active last."""
MOST_KEPT: Final = 50_000


class Presence(NamedTuple):
    """How a user is present; times are milliseconds since 1970."""

    user_id: str
    presence: str
    status_msg: str | None
    active_at: int
    shard: int
    position: int

    def event(self, now: int) -> bytes:
        """The event m.presence."""
        content: dict[str, Any] = {"presence": self.presence, "last_active_ago": max(0, now - self.active_at)}
        if self.presence == "online":
            content["currently_active"] = True
        if self.status_msg is not None:
            content["status_msg"] = self.status_msg
        return orjson.dumps({"type": "m.presence", "sender": self.user_id, "content": content})


class Presences:
    """The presences that this process has heard of, by user; the longest unheard are forgotten."""

    def __init__(self) -> None:
        self._presences: OrderedDict[str, Presence] = OrderedDict()

    def learn(self, output: Output) -> Presence:
        """Takes what an output says."""
        body, before = orjson.loads(output.json), self._presences.get(output.sender)
        status = output.notes.get("status_msg", before and before.status_msg)
        presence = Presence(output.sender, body["presence"], status, body["active_at"], output.shard, output.position)
        if before is None and "status_msg" not in output.notes:
            # A renewal of what this process has not seen: the status is not known.
            return presence
        self._presences[output.sender] = presence
        self._presences.move_to_end(output.sender)
        if len(self._presences) > MOST_KEPT:
            self._presences.popitem(last=False)
        return presence

    def get(self, user_id: str) -> Presence | None:
        """How a user is present, if it was heard of."""
        return self._presences.get(user_id)


async def read_presences(
    user_id: str, since: Iterable[int] | None, now: Iterable[int], offline: bool, connection: AsyncConnection
) -> list[Presence]:
    """Of those who share a room with a user: changes between positions by shard, or all, with or without who is offline."""
    parameters = {
        "user_id": user_id,
        "since": None if since is None else list(since),
        "now": list(now),
        "offline": offline,
        "ms": int(time.time() * 1000),
        "most": MOST_TOLD,
    }
    rows = await (await connection.execute(SQL["presences"], parameters)).fetchall()
    return [_presence(row) for row in rows]


def _presence(row: tuple[Any, ...]) -> Presence:
    user_id, presence, status, *rest = row
    return Presence(user_id, presence, None if status is None else unsafe(status), *rest)


def render_presences(presences: Iterable[Presence], wanted: EventFilter, ignored: frozenset[str]) -> list[bytes]:
    """The events that a filter lets through, of nobody who is ignored."""
    if wanted.takes_nothing:
        return []
    now = int(time.time() * 1000)
    events = [
        one.event(now) for one in presences if one.user_id not in ignored and wanted.matches("m.presence", one.user_id)
    ]
    return events if wanted.limit is None else events[: wanted.limit]
