"""GET /mutual_rooms: the rooms that a user shares with another one.

Invariant: rooms come in the order in which this server met them, and a token is the number of the last one told: pages neither
overlap nor leave out a room that stands. Source: client-server API, "Mutual Rooms".
"""

from __future__ import annotations

import re
from typing import Final

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from matrix.errors import invalid_param, missing_param
from matrix.identifiers import is_user_id
from readers.rooms.parameters import Parameters
from readers.rooms.responses import JSON
from readers.rooms.rows import SQL

PAGE: Final = 500

_TOKEN = re.compile(r"m([0-9]{1,18})")


class MutualRooms:
    """GET /mutual_rooms."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of rooms that both are in, none for a user whom nobody here knows."""
        parameters = Parameters(req)
        user_id, other, start = req.context.session.user_id, parameters.text("user_id"), parameters.text("from")
        if other is None:
            raise missing_param("user_id is missing.")
        if not is_user_id(other) or other == user_id:
            raise invalid_param("user_id names another user.")
        found = None if start is None else _TOKEN.fullmatch(start)
        if start is not None and found is None:
            raise invalid_param("from is no token of this server.")
        after = 0 if found is None else int(found[1])
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["mutual_rooms"], {"user_id": user_id, "other_id": other, "after": after, "most": PAGE + 1}
            )
            rows = await cursor.fetchall()
        body = {"joined": [room_id for _, room_id, _ in rows[:PAGE]], "count": rows[0][2] if rows else 0}
        if len(rows) > PAGE:
            body["next_batch"] = f"m{rows[PAGE - 1][0]}"
        resp.data = orjson.dumps(body)
        resp.content_type = JSON
