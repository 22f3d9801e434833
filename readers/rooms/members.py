"""Who is in a room: /members with its filters and its look into the past, /joined_members, and /joined_rooms.

Source: client-server API, "GET …/rooms/{roomId}/members", "GET …/rooms/{roomId}/joined_members", "GET …/joined_rooms".
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.safe_text import unsafe
from matrix.errors import not_found
from readers.rendering import MEMBERSHIPS
from readers.rooms.access import NOW, Access, not_a_member
from readers.rooms.parameters import Parameters
from readers.rooms.places import Places, parse_token
from readers.rooms.responses import JSON, join
from readers.rooms.rows import SQL, Row
from readers.rooms.timeline import Timelines

LETTERS: Final = {word: letter for letter, word in MEMBERSHIPS.items()}


class Members:
    """GET /rooms/{room_id}/members, and suffix `joined`: /rooms/{room_id}/joined_members."""

    def __init__(self, timelines: Timelines, places: Places) -> None:
        self._timelines = timelines
        self._places = places

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """The membership events, as of now, of the user's leave, or of a token. M_FORBIDDEN for who may not know them."""
        parameters = Parameters(req)
        letters = _letters(parameters)
        at = parameters.text("at")
        if at is not None:
            parse_token("at", at)
        session = req.context.session
        async with self._timelines.pool.connection() as connection:
            access, found = await self._timelines.access_with(
                connection, session.user_id, room_id, "current_members", {"room_id": room_id, "letters": letters}
            )
            position, line = access.reads_at(), 0
            if at is not None:
                order = await self._places.order_of("at", at, access.shard, NOW)
                if order < position:
                    position, line = await self._place(connection, access, order)
            if position != NOW:
                cursor = await connection.execute(
                    SQL["past_members"],
                    {"room": access.nid, "line": line, "position": position, "letters": letters},
                )
                found = await cursor.fetchall()
            rows = [Row(columns) for columns in found]
            chunk = await self._timelines.render(connection, access, rows, session.device_id)
        resp.data = b'{"chunk":%b}' % join(chunk)
        resp.content_type = JSON

    async def _place(self, connection: AsyncConnection, access: Access, order: int) -> tuple[int, int]:
        """Position and line of the state at a place in the timeline."""
        if order >= 0:
            if not access.sees_state_after(order):
                raise not_a_member()
            # Before the first event that is known here there is nobody: who began the room, as far as it is known.
            first = await (await connection.execute(SQL["first_member"], {"room": access.nid})).fetchone()
            return max(order, first[0] if first is not None else 0), 0
        row = await (await connection.execute(SQL["position_at"], {"room": access.nid, "order": order})).fetchone()
        if row is None:
            raise not_found("The members at that time are not known.")
        return row[1], row[0]

    async def on_get_joined(self, req: Request, resp: Response, room_id: str) -> None:
        """Those who are in the room with their profiles in it. M_FORBIDDEN unless the user is among them."""
        user_id = req.context.session.user_id
        async with self._timelines.pool.connection() as connection:
            access, found = await self._timelines.access_with(
                connection, user_id, room_id, "joined_members", {"room_id": room_id}
            )
        if not access.is_joined:
            raise not_a_member()
        joined = {unsafe(member): _profile(pdu, redacted) for member, pdu, redacted in found}
        resp.data = orjson.dumps({"joined": joined})
        resp.content_type = JSON


class JoinedRooms:
    """GET /joined_rooms."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_get(self, req: Request, resp: Response) -> None:
        """The ids of the rooms that the user is in."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["joined_rooms"], {"user_id": req.context.session.user_id})
            rooms = [room_id for (room_id,) in await cursor.fetchall()]
        resp.data = orjson.dumps({"joined_rooms": rooms})
        resp.content_type = JSON


def _letters(parameters: Parameters) -> list[str] | None:
    """The memberships asked for; None for all.

    "When specified alongside not_membership, the two parameters create an 'or' condition."
    """
    words = tuple(LETTERS)
    wanted = parameters.text("membership") and parameters.chosen("membership", words)
    unwanted = parameters.text("not_membership") and parameters.chosen("not_membership", words)
    if not wanted and not unwanted:
        return None
    chosen = {wanted} if wanted else set()
    if unwanted:
        chosen |= {word for word in words if word != unwanted}
    return [LETTERS[word] for word in words if word in chosen]


def _profile(pdu: str, redacted: bool) -> dict[str, Any]:
    if redacted:
        return {}
    content = orjson.loads(pdu)["content"]
    profile = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    return {name: value for name, value in profile.items() if isinstance(value, str)}
