"""A user's own settings of a room, taken over to the room that replaced it: tags, push rules, direct chats.

Invariant: what the user has set for the new room already stays as it is. Source: client-server API, "Room upgrades": "When a user
joins the new room, the server should automatically transfer/replicate some of the user's personalized settings".
"""

from __future__ import annotations

from typing import Any

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.identifiers import is_room_id
from matrix.push_rules import PushRuleset
from writer.account_data import PUSH_RULES, TAGS, AccountData
from writer.claims import Claims

SQL = Queries("writer", "carried_settings.sql")
DIRECT = "m.direct"


def predecessor_of(create_content: dict[str, Any]) -> str | None:
    """The room that one with this create event says it replaces."""
    predecessor = create_content.get("predecessor")
    room_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
    return room_id if is_room_id(room_id) else None


class CarriedSettings:
    """Carries settings over."""

    def __init__(self, pool: Pool, data: AccountData, claims: Claims) -> None:
        self._pool = pool
        self._data = data
        self._claims = claims

    async def carry(self, user_id: str, old_room: str, new_room: str) -> None:
        """Sets for the new room what the user has set for the old one."""
        parameters = {"user_id": user_id, "old_room": old_room, "new_room": new_room}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL["settings"], parameters)).fetchall()
        found: dict[tuple[str, str], Any] = {(room_id, kind): orjson.loads(content) for room_id, kind, content in rows}
        if (tags := found.get((old_room, TAGS))) and (new_room, TAGS) not in found:
            await self._data.put(user_id, new_room, TAGS, tags)
        direct = found.get(("", DIRECT))
        if isinstance(direct, dict) and (moved := _with_successor(direct, old_room, new_room)) != direct:
            await self._data.put(user_id, "", DIRECT, moved)
        stored = found.get(("", PUSH_RULES))
        if stored and _changed(stored, old_room, new_room):
            async with self._claims.hold(PUSH_RULES, user_id):
                rules = await self._data.get(user_id, "", PUSH_RULES) or {}
                if (changed := _changed(rules, old_room, new_room)) is not None:
                    await self._data.put(user_id, "", PUSH_RULES, changed.stored())


def _changed(stored: dict[str, Any], old_room: str, new_room: str) -> PushRuleset | None:
    rules = PushRuleset.from_stored(stored)
    changed = rules.for_successor(old_room, new_room)
    return None if changed is rules else changed


def _with_successor(direct: dict[str, Any], old_room: str, new_room: str) -> dict[str, Any]:
    return {
        user_id: [*rooms, new_room]
        if isinstance(rooms, list) and old_room in rooms and new_room not in rooms
        else rooms
        for user_id, rooms in direct.items()
    }
