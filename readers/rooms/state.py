"""A room's state: all of it, or one key.

Invariant: who is in the room reads it as it is, on the primary; who left reads it as it was when they left.
Source: client-server API, "GET …/rooms/{roomId}/state" and "GET …/rooms/{roomId}/state/{eventType}/{stateKey}".
"""

from __future__ import annotations

import orjson
from falcon.asgi import Request, Response

from eventlog.safe_text import safe
from matrix.errors import not_found
from readers.rooms.access import NOW
from readers.rooms.parameters import Parameters
from readers.rooms.responses import JSON, join
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Timelines


class State:
    """GET /rooms/{room_id}/state, and suffix `key`: /rooms/{room_id}/state/{event_type}/{state_key}."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """All state events. M_FORBIDDEN for who was never in the room."""
        session = req.context.session
        async with self._timelines.pool.connection() as connection:
            access, found = await self._timelines.access_with(
                connection, session.user_id, room_id, "current_state", {"room_id": room_id}
            )
            position = access.reads_at()
            if position != NOW:
                cursor = await connection.execute(
                    SQL["state_at"], {"room": access.nid, "line": 0, "position": position, "user_ids": None}
                )
                found = await cursor.fetchall()
            rows = [Row(columns) for columns in found]
            resp.data = join(await self._timelines.render(connection, access, rows, session.device_id))
        resp.content_type = JSON

    async def on_get_key(
        self, req: Request, resp: Response, room_id: str, event_type: str, state_key: str = ""
    ) -> None:
        """The content of a state event, or with `format=event` the event; M_NOT_FOUND if the room has none."""
        whole = Parameters(req).chosen("format", ("content", "event"), "content") == "event"
        session = req.context.session
        values = {"room_id": room_id, "type": safe(event_type), "state_key": safe(state_key), "position": NOW - 1}
        async with self._timelines.pool.connection() as connection:
            access, found = await self._timelines.access_with(
                connection, session.user_id, room_id, "state_of_key", values
            )
            position = access.reads_at()
            if position != NOW:
                values["position"] = position
                found = await (await connection.execute(SQL["state_of_key"], values)).fetchall()
            if not found:
                raise not_found("The room has no such state.")
            (event,) = await self._timelines.render(connection, access, [Row(found[0])], session.device_id)
        resp.data = event if whole else orjson.dumps(orjson.loads(event)["content"])
        resp.content_type = JSON
