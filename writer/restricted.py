"""Rooms that members of other rooms may join: who vouches for the one who does.

Source: client-server API, "Restricted rooms"; room versions 8 and 10.
"""

from __future__ import annotations

from typing import Any

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import forbidden
from matrix.identifiers import is_room_id, is_user_id
from matrix.power_levels import creators_of
from writer.permissions import CREATE, LEVELS, may_invite
from writer.rooms_of_user import local_members
from writer.views import RoomView, StateKey

SQL = Queries("writer", "restricted.sql")
JOIN_RULES: StateKey = ("m.room.join_rules", "")
# Conditions beyond these are not looked at.
MOST_CONDITIONS = 500


def is_restricted(join_rules: dict[str, Any]) -> bool:
    """Whether the content of join rules may ask for somebody who authorises a join, in some room version."""
    return join_rules.get("join_rule") in ("restricted", "knock_restricted")


class RestrictedRooms:
    """Checks the conditions of restricted rooms against what is known here."""

    def __init__(self, pool: Pool, server_name: str) -> None:
        self._pool = pool
        self._server_name = server_name

    async def authoriser(self, view: RoomView, user_id: str) -> str | None:
        """Who authorises the join of a user who was not invited; None when the room is not restricted.

        `view` has the join rules and the power levels. M_FORBIDDEN when the user meets no condition, or nobody of this server
        may invite.
        """
        rules = view.state.get(JOIN_RULES)
        rule = None if rules is None else rules.content.get("join_rule")
        version = view.room_version
        restricted = (rule == "restricted" and version.restricted_join_rule) or (
            rule == "knock_restricted" and version.knock_restricted_join_rule
        )
        if rules is None or not restricted:
            return None
        if not await self._meets(_allowed_rooms(rules.content.get("allow")), user_id):
            raise forbidden("You are in none of the rooms whose members may join this one.")
        for candidate in await self._candidates(view):
            if may_invite(view, candidate):
                return candidate
        raise forbidden("Nobody on this server can let you into this room.")

    async def _meets(self, room_ids: list[str], user_id: str) -> bool:
        if not room_ids:
            return False
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["joined_to_any"], {"user_id": user_id, "room_ids": room_ids})
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def _candidates(self, view: RoomView) -> list[str]:
        levels, create = view.state.get(LEVELS), view.state.get(CREATE)
        users = levels.content.get("users") if levels is not None else None
        # Those with a level of their own are the likeliest.
        first = [*(users if isinstance(users, dict) else ()), *(creators_of(create) if create is not None else ())]
        return await local_members(
            self._pool, view.room_id, self._server_name, [user_id for user_id in first if is_user_id(user_id)]
        )


def _allowed_rooms(allow: Any) -> list[str]:
    if not isinstance(allow, list):
        return []
    return [
        condition["room_id"]
        for condition in allow[:MOST_CONDITIONS]
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and is_room_id(condition.get("room_id"))
    ]
