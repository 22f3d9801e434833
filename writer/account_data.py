"""Account data and tags: what a user keeps for their own clients.

Invariant: what clients cannot be trusted to write (m.fully_read, m.push_rules) has endpoints of its own; tags are read and written
under a claim, so that two clients' changes do not undo each other. Source: client-server API, "Client config", "Room tagging".
"""

from __future__ import annotations

import math
from typing import Any

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe
from matrix.errors import MatrixError, bad_json, invalid_param, not_found, too_large
from matrix.identifiers import fits
from matrix.push_rules import PushRuleset
from writer.claims import Claims
from writer.log_writer import LogWriter
from writer.requests import check_own, check_room_id, read_body, session_of

SQL = Queries("writer", "account_data.sql")

SERVER_TYPES = ("m.fully_read", "m.push_rules")
PUSH_RULES = "m.push_rules"
TAGS = "m.tag"
MOST_TAGS = 500
MOST_TAG_BYTES = 65_536
"""All tags of a room, each change of which writes them all."""
MOST_TYPES = 1000


class AccountData:
    """The account data as the room server wrote it, and how it is changed."""

    def __init__(self, pool: Pool, log: LogWriter) -> None:
        self._pool = pool
        self._log = log

    async def get(self, user_id: str, room_id: str, data_type: str) -> dict[str, Any] | None:
        """The content; `room_id` is empty for global data."""
        key = {"user_id": user_id, "room_id": room_id, "type": safe(data_type)}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["content"], key)).fetchone()
        if row is None:
            return None
        content: dict[str, Any] = orjson.loads(row[0])
        return content

    async def has_room_for(self, user_id: str, room_id: str, data_type: str) -> bool:
        """Whether a type is there already, or the user has fewer than `MOST_TYPES` in the room, or globally."""
        key = {"user_id": user_id, "room_id": room_id, "type": safe(data_type), "most": MOST_TYPES}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["has_room_for"], key)).fetchone()
        return row is not None and bool(row[0])

    async def put(self, user_id: str, room_id: str, data_type: str, content: dict[str, Any]) -> None:
        """Replaces the content."""
        await self._log.append_entry(
            type="account_data",
            user_id=user_id,
            content={"room_id": room_id, "type": data_type, "content": content},
            room_id=room_id or None,
        )


class AccountDataResource:
    """/user/{user_id}/account_data/{data_type} and /user/{user_id}/rooms/{room_id}/account_data/{data_type}."""

    def __init__(self, data: AccountData) -> None:
        self._data = data

    async def on_get(self, req: Request, resp: Response, user_id: str, data_type: str, room_id: str = "") -> None:
        """The content of one type."""
        check_own(session_of(req), user_id)
        if room_id:
            check_room_id(room_id)
        content = await self._data.get(user_id, room_id, data_type)
        if data_type == PUSH_RULES and not room_id:
            content = {"global": PushRuleset.from_stored(content or {}).client_form(user_id)}
        if content is None:
            raise not_found("There is no such account data.")
        resp.media = content

    async def on_put(self, req: Request, resp: Response, user_id: str, data_type: str, room_id: str = "") -> None:
        """Replaces the content of one type."""
        content = await read_body(req)
        check_own(session_of(req), user_id)
        if room_id:
            check_room_id(room_id)
        if data_type in SERVER_TYPES:
            raise MatrixError(405, "M_BAD_JSON", f"Cannot set {data_type} through this API.")
        if not data_type or not fits(data_type):
            raise invalid_param("A type has 1 to 255 bytes.")
        if not await self._data.has_room_for(user_id, room_id, data_type):
            raise too_large(f"There may be {MOST_TYPES} types of account data in a room, and as many outside of rooms.")
        await self._data.put(user_id, room_id, data_type, content)
        resp.media = {}


class Tags:
    """/user/{user_id}/rooms/{room_id}/tags and /user/{user_id}/rooms/{room_id}/tags/{tag}."""

    def __init__(self, data: AccountData, claims: Claims) -> None:
        self._data = data
        self._claims = claims

    async def on_get_all(self, req: Request, resp: Response, user_id: str, room_id: str) -> None:
        """The tags of a room."""
        check_own(session_of(req), user_id)
        resp.media = {"tags": await self._tags(user_id, check_room_id(room_id))}

    async def on_put(self, req: Request, resp: Response, user_id: str, room_id: str, tag: str) -> None:
        """Tags a room."""
        body = await read_body(req)
        check_own(session_of(req), user_id)
        check_room_id(room_id)
        order = body.get("order")
        if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
            raise bad_json("order must be a number.")
        if order is not None and not (math.isfinite(order) and 0 <= order <= 1):
            raise invalid_param("order must be between 0 and 1.")
        if order is None:
            body.pop("order", None)
        if not tag or not fits(tag):
            raise invalid_param("A tag has 1 to 255 bytes.")
        async with self._claims.hold(TAGS, user_id, room_id):
            tags = await self._tags(user_id, room_id)
            if len(tags) >= MOST_TAGS and tag not in tags:
                raise too_large(f"A room may have {MOST_TAGS} tags.")
            changed = {**tags, tag: body}
            if len(orjson.dumps(changed)) > MOST_TAG_BYTES:
                raise too_large("The tags of a room may have 64 KiB.")
            await self._data.put(user_id, room_id, TAGS, {"tags": changed})
        resp.media = {}

    async def on_delete(self, req: Request, resp: Response, user_id: str, room_id: str, tag: str) -> None:
        """Removes a tag."""
        check_own(session_of(req), user_id)
        check_room_id(room_id)
        async with self._claims.hold(TAGS, user_id, room_id):
            tags = await self._tags(user_id, room_id)
            if tags.pop(tag, None) is not None:
                await self._data.put(user_id, room_id, TAGS, {"tags": tags})
        resp.media = {}

    async def _tags(self, user_id: str, room_id: str) -> dict[str, Any]:
        content = await self._data.get(user_id, room_id, TAGS)
        tags = None if content is None else content.get("tags")
        return tags if isinstance(tags, dict) else {}
