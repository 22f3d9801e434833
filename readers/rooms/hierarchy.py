"""GET /rooms/{room_id}/hierarchy and GET /room_summary/{room_id_or_alias}.

Invariant: a hierarchy is walked depth first, each room once, and a token is the number of rooms told so far, and of which walk:
its pages do not overlap while nothing changes. A walk ends after `MOST_ROOMS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from matrix.errors import forbidden, invalid_param, not_found
from matrix.identifiers import is_room_alias, is_room_id
from readers.rooms.parameters import Parameters
from readers.rooms.responses import JSON
from readers.rooms.rows import SQL
from readers.rooms.summaries import Summary, read_summaries

DEFAULT_LIMIT: Final = 50
MOST_LIMIT: Final = 100
MOST_DEPTH: Final = 20
MOST_ROOMS: Final = 1_000
"""Rooms that a walk visits."""

_TOKEN = re.compile(r"h([0-9]{1,4})_([0-9]{1,2})_([01])_([0-9a-f]{8})")


class Hierarchy:
    """GET /rooms/{room_id}/hierarchy."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """A page of the tree below a room; M_FORBIDDEN if the user may not know of it."""
        parameters = Parameters(req)
        limit = parameters.limit(DEFAULT_LIMIT, MOST_LIMIT)
        depth = parameters.integer("max_depth")
        if depth is not None and depth < 0:
            raise invalid_param("max_depth is not negative.")
        suggested = parameters.flag("suggested_only") is True
        skip, depth = _resume(parameters.text("from"), room_id, depth, suggested)
        async with self._pool.connection() as connection:
            found = await self._read(connection, req.context.session.user_id, room_id, depth, suggested)
        if room_id not in found:
            raise forbidden("You are not allowed to view this room.")
        rooms = []
        more = False
        for number, (summary, children) in enumerate(_walk(found, room_id, depth, suggested)):
            if number >= skip + limit:
                more = True
                break
            if number >= skip:
                rooms.append({**summary.room, "children_state": children})
        body: dict[str, Any] = {"rooms": rooms}
        if more:
            body["next_batch"] = f"h{skip + limit}_{depth}_{int(suggested)}_{_mark(room_id)}"
        resp.data = orjson.dumps(body)
        resp.content_type = JSON

    async def _read(
        self, connection: AsyncConnection, user_id: str, root: str, depth: int, suggested: bool
    ) -> dict[str, Summary]:
        """What a walk may come to, a level at a time."""
        found: dict[str, Summary] = {}
        asked: set[str] = set()
        level = [root] if is_room_id(root) else []
        for _ in range(depth + 1):
            level = [room_id for room_id in dict.fromkeys(level) if room_id not in asked][: MOST_ROOMS - len(asked)]
            if not level:
                break
            asked.update(level)
            read = await read_summaries(connection, user_id, level, children=True)
            found |= read
            level = [
                child["state_key"]
                for room_id in level
                if room_id in read
                for child in _chosen(read[room_id], suggested)
            ]
        return found


class RoomSummary:
    """GET /room_summary/{room_id_or_alias}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_get(self, req: Request, resp: Response, room_id_or_alias: str) -> None:
        """The room's summary with the user's membership; M_NOT_FOUND if they may not know of it."""
        user_id = req.context.session.user_id
        async with self._pool.connection() as connection:
            room_id: str | None = room_id_or_alias
            if room_id_or_alias.startswith("#"):
                room_id = await _aliased(connection, room_id_or_alias)
            elif not is_room_id(room_id_or_alias):
                raise invalid_param("That is neither a room ID nor an alias.")
            found = {} if room_id is None else await read_summaries(connection, user_id, [room_id], children=False)
        if room_id is None or room_id not in found:
            raise not_found("Room not found.")
        summary = found[room_id]
        membership = {} if summary.membership is None else {"membership": summary.membership}
        resp.data = orjson.dumps({**summary.room, **membership})
        resp.content_type = JSON


async def _aliased(connection: AsyncConnection, alias: str) -> str | None:
    if not is_room_alias(alias):
        raise invalid_param("Not a room alias.")
    row = await (await connection.execute(SQL["room_of_alias"], {"alias": alias})).fetchone()
    return None if row is None else row[0]


def _mark(room_id: str) -> str:
    """What tells the tokens of one room's walks from those of another's."""
    return f"{crc32(room_id.encode()):08x}"


def _resume(token: str | None, room_id: str, depth: int | None, suggested: bool) -> tuple[int, int]:
    """How many rooms were told already, and the depth; M_INVALID_PARAM for a token that is none or of another walk."""
    if token is None:
        return 0, min(MOST_DEPTH if depth is None else depth, MOST_DEPTH)
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise invalid_param("from is no token of this server.")
    if found[4] != _mark(room_id):
        raise invalid_param("from is a token of another room.")
    skip, walked, only = (int(part) for part in found.groups()[:3])
    # "suggested_only and max_depth cannot change on paginated requests"; those who leave them out have not changed them.
    if (depth is not None and min(depth, MOST_DEPTH) != walked) or (suggested and not only):
        raise invalid_param("suggested_only and max_depth cannot change on paginated requests.")
    return skip, min(walked, MOST_DEPTH)


def _chosen(summary: Summary, suggested: bool) -> list[dict[str, Any]]:
    """The children that a walk goes to."""
    return [child for child in summary.children if not suggested or child["content"].get("suggested") is True]


def _walk(
    found: dict[str, Summary], root: str, depth: int, suggested: bool
) -> Iterator[tuple[Summary, list[dict[str, Any]]]]:
    """The rooms in depth-first order, each with the children shown."""
    seen: set[str] = set()
    stack = [(root, 0)]
    while stack:
        room_id, level = stack.pop()
        summary = found.get(room_id)
        if summary is None or room_id in seen:
            continue
        seen.add(room_id)
        children = _chosen(summary, suggested)
        yield summary, children
        if level < depth:
            stack += [(child["state_key"], level + 1) for child in reversed(children)]
