"""POST /user_directory/search.

Invariant: found is who shares a room with the searcher, or is in a room that anybody may join or read. Source: client-server API,
"User Directory".
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.safe_text import unsafe
from matrix.errors import bad_json, invalid_param, missing_param
from readers.follower import wait_until_current
from readers.userdirectory.projection import SQL, UserDirectoryProjection
from readers.userdirectory.words import queries_of

LIMIT: Final = 10
MOST: Final = 100
"""Results of one search."""
MOST_MATCHES: Final = 5_000
"""Users with the words looked at, whether they may be found or not."""
MOST_TERM: Final = 255
FRESH_SECONDS: Final = 2.0
"""How long a search waits for the directory to have taken in what happened before it."""


class UserDirectory:
    """POST /user_directory/search."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_post(self, req: Request, resp: Response) -> None:
        """Users by their names and ids."""
        body = await req.get_media()
        if not isinstance(body, dict):
            raise bad_json("The body must be an object.")
        term, limit = body.get("search_term"), body.get("limit", LIMIT)
        if term is None:
            raise missing_param("search_term is missing.")
        if not isinstance(term, str):
            raise bad_json("search_term must be a string.")
        if type(limit) is not int:
            raise bad_json("limit must be an integer.")
        if limit < 1 or len(term) > MOST_TERM:
            raise invalid_param(f"limit is at least 1, and search_term has at most {MOST_TERM} characters.")
        limit = min(limit, MOST)
        words, exact = queries_of(term)
        found: list[tuple[str, str | None, str | None]] = []
        if words:
            asked = {
                "user_id": req.context.session.user_id,
                "words": words,
                "exact": exact,
                "most": MOST_MATCHES,
                "limit": limit + 1,
            }
            async with self._pool.connection() as connection:
                await wait_until_current(connection, UserDirectoryProjection.name, FRESH_SECONDS)
                found = await (await connection.execute(SQL["find"], asked)).fetchall()
        results = [_user(*row) for row in found[:limit]]
        resp.data = orjson.dumps({"results": results, "limited": len(found) > limit})


def _user(user_id: str, display_name: str | None, avatar_url: str | None) -> dict[str, Any]:
    user = {"user_id": user_id}
    if display_name is not None:
        user["display_name"] = unsafe(display_name)
    if avatar_url is not None:
        user["avatar_url"] = unsafe(avatar_url)
    return user


class Routes(Protocol):
    """What resources are mounted on: falcon's application, or what collects routes for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, pool: Pool) -> None:
    """Mounts the endpoint. `pool` is of the role reader, on the primary."""
    app.add_route("/_matrix/client/v3/user_directory/search", UserDirectory(pool))
