"""Who can be found by name, and the rooms whose members everybody may find.

Invariant: a user is here while they are in a room known here, under their public name: that of the profile for local users, so that
a name used in one room alone is not told outside it; that of the last join for others. Source: client-server API, "User Directory".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe
from readers.follower import Judged, scrubbed
from readers.userdirectory.words import words_of

SQL: Final = Queries("readers.userdirectory", "userdirectory.sql")
OPENNESS: Final = ("m.room.join_rules", "m.room.history_visibility")


class UserDirectoryProjection:
    """Keeps userdirectory.users and public_rooms. What changed is looked up as it is now, so that a rebuild ends in the same."""

    name: Final = "userdirectory"

    def __init__(self, server_name: str) -> None:
        self._ending = f":{server_name}"

    async def begin(self, connection: AsyncConnection) -> None:
        """Nothing is cached."""

    async def clear(self, connection: AsyncConnection) -> None:
        """Removes everybody."""
        await connection.execute(SQL["clear"])

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        """Looks at the users and rooms that some outputs changed."""
        users: dict[str, None] = {}
        rooms: dict[int, None] = {}
        for output in outputs:
            if output.verdict != "a":
                continue
            if output.kind == "u":
                if output.type == "profile":
                    users[output.sender] = None
                continue
            users |= dict.fromkeys(user_id for user_id, *_ in output.notes.get("members", ()))
            if output.type == "m.room.member" and output.state_key is not None:
                users[output.state_key] = None
            delta = [(output.type, output.state_key), *((kind, key) for kind, key, *_ in output.notes.get("state", ()))]
            if output.room is not None and any(kind in OPENNESS and key == "" for kind, key in delta):
                rooms[output.room] = None
        left, gone = scrubbed(outputs)
        users |= dict.fromkeys(gone)
        if users:
            await self._look_at(connection, users)
        if left:
            await self.tidy(connection)
        if rooms:
            await connection.execute(SQL["judge_rooms"], {"rooms": list(rooms)})

    async def tidy(self, connection: AsyncConnection) -> None:
        """Takes out who was in rooms that are gone."""
        await connection.execute(SQL["tidy"])

    async def _look_at(self, connection: AsyncConnection, users: Iterable[str]) -> None:
        cursor = await connection.execute(SQL["profiles"], {"users": [safe(user_id) for user_id in users]})
        put: list[dict[str, Any]] = []
        gone: list[str] = []
        for user_id, join, name, avatar in await cursor.fetchall():
            if join is None:
                gone.append(user_id)
                continue
            if user_id.endswith(self._ending):
                profile = {"displayname": orjson.loads(name or "null"), "avatar_url": orjson.loads(avatar or "null")}
            else:
                profile = orjson.loads(join)["content"]
            name, avatar = _text(profile.get("displayname")), _text(profile.get("avatar_url"))
            words = words_of(user_id, name)
            put.append({"user_id": user_id, "display_name": name, "avatar_url": avatar, "words": words})
        if put:
            await connection.execute(SQL["put"], {"users": orjson.dumps(put).decode()})
        if gone:
            await connection.execute(SQL["remove"], {"users": gone})


def _text(value: Any) -> str | None:
    return safe(value) if isinstance(value, str) and value else None
