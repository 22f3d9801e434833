"""Single events: GET /rooms/{room_id}/event/{event_id}, and the event with what surrounds it.

Source: client-server API, "GET …/rooms/{roomId}/event/{eventId}" and "GET …/rooms/{roomId}/context/{eventId}".
"""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.safe_text import safe
from eventlog.tokens import TimelineToken
from matrix.errors import MatrixError, not_found
from matrix.filters import RoomEventFilter
from readers.rooms.access import NOW, START, Access
from readers.rooms.parameters import NO_FILTER, Parameters
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Page, Stretch, Timelines, takes

DEFAULT_CONTEXT: Final = 10
MOST_CONTEXT: Final = 1_000


async def find_event(
    timelines: Timelines, connection: AsyncConnection, user_id: str, room_id: str, event_id: str
) -> tuple[Access, Row]:
    """An event that the user may see; M_NOT_FOUND for any other, and for rooms that there are not."""
    try:
        access, found = await timelines.access_with(
            connection, user_id, room_id, "event", {"room_id": room_id, "event_id": safe(event_id)}
        )
    except MatrixError:
        raise not_found("Event not found.") from None
    rows = [Row(columns) for columns in found]
    await timelines.learn_lines(connection, access, rows)
    if not rows or not access.sees(rows[0]):
        raise not_found("Event not found.")
    return access, rows[0]


class SingleEvent:
    """GET /rooms/{room_id}/event/{event_id}."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response, room_id: str, event_id: str) -> None:
        """The event; M_NOT_FOUND if it is not there or not for the user."""
        session = req.context.session
        async with self._timelines.pool.connection() as connection:
            access, row = await find_event(self._timelines, connection, session.user_id, room_id, event_id)
            (resp.data,) = await self._timelines.render(connection, access, [row], session.device_id)
        resp.content_type = JSON


class Context:
    """GET /rooms/{room_id}/context/{event_id}."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response, room_id: str, event_id: str) -> None:
        """The event, what came before and after it, and the room's state at the last event returned."""
        parameters = Parameters(req)
        limit = parameters.limit(DEFAULT_CONTEXT, MOST_CONTEXT, least=0)
        wanted = parameters.room_event_filter()
        if wanted.limit is not None:
            limit = min(limit, wanted.limit)
        session = req.context.session
        timelines = self._timelines
        async with timelines.pool.connection() as connection:
            access, row = await find_event(timelines, connection, session.user_id, room_id, event_id)
            before, after = await self._around(connection, access, row, limit, wanted)
            last = after.rows[-1] if after.rows else row
            state = await self._state_at(connection, access, last, [row, *before.rows, *after.rows], wanted)
            rendered = await timelines.render(
                connection, access, [row, *before.rows, *after.rows, *state], session.device_id
            )
        first = before.rows[-1] if before.rows else row
        middle = 1 + len(before.rows)
        rest = middle + len(after.rows)
        resp.data = b"".join(
            [
                b'{"start":',
                quoted(str(TimelineToken(first.timeline - 1))),
                b',"end":',
                quoted(str(TimelineToken(last.timeline))),
                b',"event":',
                rendered[0],
                b',"events_before":',
                join(rendered[1:middle]),
                b',"events_after":',
                join(rendered[middle:rest]),
                b',"state":',
                join(rendered[rest:]),
                b"}",
            ]
        )
        resp.content_type = JSON

    async def _around(
        self, connection: AsyncConnection, access: Access, row: Row, limit: int, wanted: RoomEventFilter
    ) -> tuple[Page, Page]:
        # "The limit applies to the sum of the events_before and events_after arrays."
        half = limit // 2
        back = Stretch(START, row.timeline - 1, True)
        forth = Stretch(row.timeline, NOW, False)
        before = await self._timelines.read(connection, access, back, half, wanted) if half else Page([], None)
        after = await self._timelines.read(connection, access, forth, limit - half, wanted) if limit else Page([], None)
        return before, after

    async def _state_at(
        self, connection: AsyncConnection, access: Access, last: Row, rows: list[Row], wanted: RoomEventFilter
    ) -> list[Row]:
        """ "The state of the room at the last event returned", of lazily loaded members those who sent one of the events."""
        user_ids = sorted({safe(row.sender) for row in rows}) if wanted.lazy_load_members else None
        cursor = await connection.execute(
            SQL["state_at"],
            {"room": access.nid, "line": last.line, "position": last.position, "user_ids": user_ids},
        )
        state = [Row(columns) for columns in await cursor.fetchall()]
        if wanted is NO_FILTER:
            return state
        return [row for row in state if wanted.matches(row.type, row.sender) and takes(access, wanted, row)]
