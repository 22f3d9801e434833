"""Filters that clients keep here and then name by their id.

Invariant: a filter never changes, and equal definitions of a user have one id: it is made from their hash.
Source: client-server API, "Filtering".
"""

from __future__ import annotations

from hashlib import sha256

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import not_found, too_large
from matrix.filters import parse_filter
from matrix.unpadded_base64 import encode_url_safe
from writer.requests import check_own, read_body, session_of

SQL = Queries("writer", "filters.sql")
MOST_FILTERS = 1000
MOST_BYTES = 65_536


class Filters:
    """POST /user/{user_id}/filter and GET /user/{user_id}/filter/{filter_id}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_post_new(self, req: Request, resp: Response, user_id: str) -> None:
        """Keeps a filter and names it."""
        body = await read_body(req)
        check_own(session_of(req), user_id)
        parse_filter(body)
        definition = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        if len(definition) > MOST_BYTES:
            raise too_large("A filter may have 64 KiB.")
        filter_id = encode_url_safe(sha256(definition).digest()[:12])
        values = {"user_id": user_id, "filter_id": filter_id, "definition": definition.decode(), "most": MOST_FILTERS}
        async with self._pool.connection() as connection:
            await connection.execute(SQL["put_filter"], values)
            if await (await connection.execute(SQL["filter"], values)).fetchone() is None:
                raise too_large(f"A user may keep {MOST_FILTERS} filters.")
        resp.media = {"filter_id": filter_id}

    async def on_get(self, req: Request, resp: Response, user_id: str, filter_id: str) -> None:
        """The definition of a filter."""
        check_own(session_of(req), user_id)
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["filter"], {"user_id": user_id, "filter_id": filter_id})
            row = await cursor.fetchone()
        if row is None:
            raise not_found("There is no such filter.")
        resp.data = row[0].encode()
