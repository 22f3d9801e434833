"""The event closest to a moment: GET /rooms/{room_id}/timestamp_to_event.

A room's timeline is nearly in the order of its events' timestamps, so the moment is found by bisection, in as many steps as the
number of positions has binary digits, and the closest event is chosen among those around it. Events that lie about their time by
more than that are not found.
Source: client-server API, "GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event"; MSC3030.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from matrix.errors import missing_param, not_found
from readers.rooms.access import NOW, START, Access
from readers.rooms.parameters import NO_FILTER, Parameters
from readers.rooms.responses import JSON
from readers.rooms.rows import Row
from readers.rooms.timeline import Stretch, Timelines

AROUND: Final = 50
"""Events looked at on the far side of the moment."""


class TimestampToEvent:
    """GET /rooms/{room_id}/timestamp_to_event."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """The id and timestamp of the first event from `ts` on, or of the last one up to it; M_NOT_FOUND if none."""
        parameters = Parameters(req)
        ts = parameters.integer("ts")
        if ts is None:
            raise missing_param("ts is missing.")
        backwards = parameters.backwards()
        async with self._timelines.pool.connection() as connection:
            access = await self._timelines.access(connection, req.context.session.user_id, room_id)
            access.reads_at()
            place = await self._bisect(connection, room_id, ts)
            found = await self._closest(connection, access, place, ts, backwards)
        if found is None:
            direction = "backward" if backwards else "forward"
            raise not_found(f"Unable to find event from {ts} in {direction} direction.")
        resp.data = orjson.dumps({"event_id": found[1], "origin_server_ts": found[0]})
        resp.content_type = JSON

    async def _bisect(self, connection: AsyncConnection, room_id: str, ts: int) -> int:
        """A place in the timeline with the events before `ts` behind it and the others ahead."""
        first = await self._next(connection, room_id, Stretch(START, NOW, False))
        last = await self._next(connection, room_id, Stretch(START, NOW, True))
        if first is None or last is None:
            return 0
        low, high = first.timeline - 1, last.timeline
        # All up to `low` are earlier than ts, and from `high` on none is, or there is no more.
        while high - low > 1:
            middle = (low + high) // 2
            row = await self._next(connection, room_id, Stretch(middle, high, False))
            if row is None:
                high = middle
            elif _ts(row) < ts:
                low = row.timeline
            else:
                high = middle
        return low

    async def _next(self, connection: AsyncConnection, room_id: str, stretch: Stretch) -> Row | None:
        batch = await self._timelines.fetch(connection, room_id, stretch, 1, NO_FILTER)
        return batch.rows[0] if batch.rows else None

    async def _closest(
        self, connection: AsyncConnection, access: Access, place: int, ts: int, backwards: bool
    ) -> tuple[int, str] | None:
        before = await self._timelines.read(connection, access, Stretch(START, place, True), AROUND, NO_FILTER)
        after = await self._timelines.read(connection, access, Stretch(place, NOW, False), AROUND, NO_FILTER)
        times = [(_ts(row), row.event_id) for row in (*before.rows, *after.rows)]
        if backwards:
            return max((time for time in times if time[0] <= ts), default=None)
        return min((time for time in times if time[0] >= ts), default=None)


def _ts(row: Row) -> int:
    pdu: dict[str, Any] = orjson.loads(row.json)
    ts = pdu["origin_server_ts"]
    return ts if isinstance(ts, int) else 0
