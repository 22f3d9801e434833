"""A room at a glance, and an event by its id alone: GET /rooms/{room_id}/initialSync and GET /events/{event_id}.

Invariant: whoever may read the room now sees it as it is, whoever left it as it was then, by the same rules as everywhere. The
token at the end goes on in /events, /messages and /sync. Source: client-server API, "GET …/rooms/{roomId}/initialSync", "Room
Previews".
"""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response

from eventlog.safe_text import safe, unsafe
from eventlog.tokens import TimelineToken
from matrix.errors import not_found
from readers.rooms.access import NOW, START
from readers.rooms.events import find_event
from readers.rooms.parameters import NO_FILTER, Parameters
from readers.rooms.places import Places
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Stretch, Timelines

DEFAULT_LIMIT: Final = 10
MOST_LIMIT: Final = 100


class RoomInitialSync:
    """GET /rooms/{room_id}/initialSync."""

    def __init__(self, timelines: Timelines, places: Places) -> None:
        self._timelines = timelines
        self._places = places

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """State, the latest messages, the user's own data of the room. M_FORBIDDEN for who may not look into it."""
        limit = Parameters(req).limit(DEFAULT_LIMIT, MOST_LIMIT)
        session, timelines = req.context.session, self._timelines
        token = self._places.present()
        async with timelines.pool.connection() as connection:
            access, found = await timelines.access_with(
                connection, session.user_id, room_id, "current_state", {"room_id": room_id}
            )
            position = access.reads_at()
            if position != NOW:
                cursor = await connection.execute(
                    SQL["state_at"], {"room": access.nid, "line": 0, "position": position, "user_ids": None}
                )
                found = await cursor.fetchall()
            state = [Row(columns) for columns in found]
            # The events that the token has not come to are told by what goes on from it.
            latest = min(position, await self._places.order_of("end", token, access.shard, NOW))
            page = await timelines.read(connection, access, Stretch(START, latest, True), limit, NO_FILTER)
            rendered = await timelines.render(connection, access, [*page.rows, *state], session.device_id)
            cursor = await connection.execute(SQL["of_room"], {"room_id": room_id, "user_id": session.user_id})
            data = await cursor.fetchall()
        messages, rest = rendered[: len(page.rows)][::-1], rendered[len(page.rows) :]
        parts = [b'{"room_id":', quoted(room_id), b',"messages":{"chunk":', join(messages), b',"end":', quoted(token)]
        if page.rows:
            parts += [b',"start":', quoted(str(TimelineToken(page.rows[-1].timeline - 1)))]
        parts += [b'},"state":', join(rest)]
        if data[0][1] is not None:
            parts += [b',"membership":"', access.membership.encode(), b'"']
        parts += [b',"visibility":"%b"' % (b"public" if data[0][0] else b"private")]
        account_data = [
            b'{"type":%b,"content":%b}' % (quoted(unsafe(kind)), content.encode())
            for _, _, kind, content in data
            if kind is not None
        ]
        resp.data = b"".join([*parts, b',"account_data":', join(account_data), b"}"])
        resp.content_type = JSON


class EventAlone:
    """GET /events/{event_id}."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response, event_id: str) -> None:
        """The event, whichever room it is of; M_NOT_FOUND if the user may not see it."""
        session = req.context.session
        async with self._timelines.pool.connection() as connection:
            row = await (await connection.execute(SQL["room_of_event"], {"event_id": safe(event_id)})).fetchone()
            if row is None:
                raise not_found("Event not found.")
            access, event = await find_event(self._timelines, connection, session.user_id, row[0], event_id)
            (resp.data,) = await self._timelines.render(connection, access, [event], session.device_id)
        resp.content_type = JSON
