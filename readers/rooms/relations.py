"""The events that relate to an event: reactions, edits, threads, references.

Source: client-server API, "Relationships API"; MSC3981 for `recurse`, MSC3715 for `dir`.
"""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response

from eventlog.safe_text import safe
from eventlog.tokens import TimelineToken
from readers.rooms.access import NOW, START
from readers.rooms.events import find_event
from readers.rooms.parameters import Parameters
from readers.rooms.places import Places, parse_token
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Timelines, visible, within_bytes

DEFAULT_LIMIT: Final = 50
MOST_LIMIT: Final = 1_000
DEPTH: Final = 3
"""Steps from the event that `recurse` goes: "Homeservers SHOULD traverse at least 3 levels of relationships.\""""


class Relations:
    """GET /rooms/{room_id}/relations/{event_id}[/{rel_type}[/{event_type}]]."""

    def __init__(self, timelines: Timelines, places: Places) -> None:
        self._timelines = timelines
        self._places = places

    async def on_get(
        self,
        req: Request,
        resp: Response,
        room_id: str,
        event_id: str,
        rel_type: str | None = None,
        event_type: str | None = None,
    ) -> None:
        """A page of events, the latest first unless `dir=f`. M_NOT_FOUND unless the user may see the parent event."""
        parameters = Parameters(req)
        backwards = parameters.backwards("b")
        limit = parameters.limit(DEFAULT_LIMIT, MOST_LIMIT)
        recurse = parameters.flag("recurse")
        start, stop = parameters.text("from"), parameters.text("to")
        for name, text in (("from", start), ("to", stop)):
            if text is not None:
                parse_token(name, text)
        session = req.context.session
        timelines = self._timelines
        async with timelines.pool.connection() as connection:
            access, parent = await find_event(timelines, connection, session.user_id, room_id, event_id)
            near = await self._places.order_of("from", start, access.shard, NOW if backwards else START)
            far = await self._places.order_of("to", stop, access.shard, START if backwards else NOW)
            cursor = await connection.execute(
                SQL["related_backwards" if backwards else "related_forwards"],
                {
                    "room": access.nid,
                    "target": parent.event_id,
                    "rel_type": None if rel_type is None else safe(rel_type),
                    "type": None if event_type is None else safe(event_type),
                    "recurse": recurse is True,
                    "upto": near if backwards else far,
                    "after": far if backwards else near,
                    "most": limit + 1,
                },
            )
            found = [Row(columns) for columns in await cursor.fetchall()]
            rows = within_bytes(found[:limit])
            await timelines.learn_lines(connection, access, rows)
            chunk = await timelines.render(connection, access, visible(access, rows), session.device_id)
        parts = [b'{"chunk":', join(chunk)]
        if len(found) > len(rows):
            end = rows[-1].timeline
            parts += [b',"next_batch":', quoted(str(TimelineToken(end - 1 if backwards else end)))]
        if start is not None:
            parts += [b',"prev_batch":', quoted(start)]
        if recurse is not None:
            parts.append(b',"recursion_depth":%d' % (DEPTH if recurse else 1))
        resp.data = b"".join([*parts, b"}"])
        resp.content_type = JSON
