"""GET /rooms/{room_id}/messages: a room's history, page by page in either direction.

Source: client-server API, "GET /_matrix/client/v3/rooms/{roomId}/messages".
"""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response

from eventlog.sessions import Session
from eventlog.tokens import TimelineToken
from matrix.filters import RoomEventFilter
from readers.rooms.access import NOW, START
from readers.rooms.parameters import Parameters
from readers.rooms.places import Places, parse_token
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.timeline import Stretch, Timelines

DEFAULT_LIMIT: Final = 10
MOST_LIMIT: Final = 1_000


class Messages:
    """GET /rooms/{room_id}/messages."""

    def __init__(self, timelines: Timelines, places: Places) -> None:
        self._timelines = timelines
        self._places = places

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """A page from a place in a direction, with a token to go on with. M_FORBIDDEN for who was never in the room."""
        parameters = Parameters(req)
        if parameters.text("dir") is None:
            # Who may not read the room hears that first.
            async with self._timelines.pool.connection() as connection:
                (await self._timelines.access(connection, req.context.session.user_id, room_id)).reads_at()
        backwards = parameters.backwards()
        wanted = parameters.room_event_filter()
        limit = parameters.limit(DEFAULT_LIMIT, MOST_LIMIT)
        if wanted.limit is not None:
            limit = min(limit, max(wanted.limit, 1))
        start, stop = parameters.text("from"), parameters.text("to")
        for name, text in (("from", start), ("to", stop)):
            if text is not None:
                parse_token(name, text)
        resp.data = await self._page(
            req.context.session, room_id, start, stop, backwards=backwards, limit=limit, wanted=wanted
        )
        resp.content_type = JSON

    async def _page(
        self,
        session: Session,
        room_id: str,
        start: str | None,
        stop: str | None,
        *,
        backwards: bool,
        limit: int,
        wanted: RoomEventFilter,
    ) -> bytes:
        timelines = self._timelines
        shard = self._places.shard_of(room_id)
        near = await self._places.order_of("from", start, shard, NOW if backwards else START)
        far = await self._places.order_of("to", stop, shard, START if backwards else NOW)
        stretch = Stretch(far, near, True) if backwards else Stretch(near, far, False)
        async with timelines.pool.connection() as connection:
            query, values, read = timelines.query(room_id, stretch, limit + 1, wanted)
            access, found = await timelines.access_with(connection, session.user_id, room_id, query, values)
            access.reads_at()
            page = await timelines.read(connection, access, stretch, limit, wanted, first=read(found))
            chunk = await timelines.render(connection, access, page.rows, session.device_id)
            state: list[bytes] = []
            if wanted.lazy_load_members and page.rows:
                members = await timelines.members_of_senders(connection, access, page.rows, page.rows[0].position)
                state = await timelines.render(connection, access, members, session.device_id)
        if start is None:
            # "A token corresponding to the start of chunk."
            first = page.rows[0].timeline if page.rows else 0
            start = str(TimelineToken(first if backwards else first - 1))
        parts = [b'{"start":', quoted(start), b',"chunk":', join(chunk)]
        if page.end is not None:
            parts += [b',"end":', quoted(str(TimelineToken(page.end)))]
        if wanted.lazy_load_members:
            parts += [b',"state":', join(state)]
        return b"".join([*parts, b"}"])
