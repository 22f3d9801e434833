"""GET /rooms/{room_id}/threads: the threads of a room, the one with the latest reply first.

Invariant: a thread's place is that of the latest reply that the user may see, so a token is a place in the timeline and no thread
comes twice. Threads without such a reply are none. Source: client-server API, "Querying threads in a room".
"""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.tokens import TimelineToken
from readers.rooms.access import NOW, START, Access, Span
from readers.rooms.parameters import Parameters
from readers.rooms.places import Places, parse_token
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Timelines

DEFAULT_LIMIT: Final = 20
MOST_LIMIT: Final = 100
SCAN: Final = 2_000
"""Replies looked through per round."""
MOST_ROUNDS: Final = 5


class Threads:
    """GET /rooms/{room_id}/threads."""

    def __init__(self, timelines: Timelines, places: Places) -> None:
        self._timelines = timelines
        self._places = places

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """A page of thread roots; M_FORBIDDEN for who may not look into the room."""
        parameters = Parameters(req)
        limit = parameters.limit(DEFAULT_LIMIT, MOST_LIMIT)
        participated = parameters.chosen("include", ("all", "participated"), "all") == "participated"
        start = parameters.text("from")
        if start is not None:
            parse_token("from", start)
        session, timelines = req.context.session, self._timelines
        async with timelines.pool.connection() as connection:
            access = await timelines.access(connection, session.user_id, room_id)
            access.reads_at()
            near = await self._places.order_of("from", start, access.shard, NOW)
            rows, end = await self._page(connection, access, near, limit, participated)
            await timelines.learn_lines(connection, access, rows)
            seen = [row for row in rows if access.sees(row)]
            # "If the thread root event was sent by an ignored user, the event is returned redacted to the caller."
            ignored = {row.event_id for row in seen if row.sender in access.ignored}
            chunk = await timelines.render(connection, access, seen, session.device_id, pruned=ignored)
        parts = [b'{"chunk":', join(chunk)]
        if end is not None:
            parts += [b',"next_batch":', quoted(str(TimelineToken(end)))]
        resp.data = b"".join([*parts, b"}"])
        resp.content_type = JSON

    async def _page(
        self, connection: AsyncConnection, access: Access, near: int, limit: int, participated: bool
    ) -> tuple[list[Row], int | None]:
        """Roots in order, and where to go on; None at the end."""
        spans = access.spans(1)
        values = {
            "room": access.nid,
            "user_id": access.user_id,
            "ignored": list(access.ignored),
            "participated": participated,
            "scan": SCAN,
            "after": [span.after for span in spans or [Span(access.nid)]],
            "upto": [span.upto for span in spans or [Span(access.nid)]],
        }
        rows: list[Row] = []
        for _ in range(MOST_ROUNDS):
            cursor = await connection.execute(SQL["threads"], {**values, "near": near, "most": limit - len(rows)})
            found = await cursor.fetchall()
            scanned, last = found[0][13:]
            batch = [(row[12], Row(row[:12])) for row in found if row[0] is not None]
            rows += [row for _, row in batch]
            if len(rows) == limit:
                # What follows has its latest reply before this one's.
                return rows, batch[-1][0] - 1
            if scanned < SCAN or last <= START:
                return rows, None
            near = last - 1
        return rows, near
