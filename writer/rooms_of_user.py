"""Which rooms a user is in: what the room server's transaction wrote, read on the primary.

Memberships are the room server's letters: j join, i invite, l leave, b ban, k knock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import MatrixError, forbidden, not_found
from matrix.identifiers import is_room_id, is_user_id

log = structlog.get_logger(__name__)
SQL = Queries("writer", "rooms_of_user.sql")

# Rooms that one request changes at once.
AT_ONCE = 16


async def rooms_of_user(pool: Pool, user_id: str, memberships: Iterable[str]) -> list[str]:
    """Room ids in which the user has one of the memberships, those entered last first."""
    async with pool.connection() as connection:
        cursor = await connection.execute(SQL["rooms_of_user"], {"user_id": user_id, "memberships": list(memberships)})
        return [row[0] for row in await cursor.fetchall()]


async def membership_in(pool: Pool, user_id: str, room_id: str) -> str | None:
    """The user's membership, None if there never was one. M_NOT_FOUND if the room is not known."""
    if not is_room_id(room_id) or not is_user_id(user_id):
        raise not_found("Unknown room.")
    async with pool.connection() as connection:
        cursor = await connection.execute(SQL["membership"], {"user_id": user_id, "room_id": room_id})
        row = await cursor.fetchone()
    if row is None:
        raise not_found("Unknown room.")
    membership: str | None = row[0]
    return membership


async def check_joined(pool: Pool, user_id: str, room_id: str) -> None:
    """M_FORBIDDEN unless the user is in the room, also when there is no such room: who is outside learns nothing."""
    try:
        membership = await membership_in(pool, user_id, room_id)
    except MatrixError:
        membership = None
    if membership != "j":
        raise forbidden("You are not in this room.")


async def local_members(
    pool: Pool, room_id: str, server_name: str, first: Iterable[str], most: int = 1000
) -> list[str]:
    """Joined members of this server, at most so many; those of `first` come first."""
    async with pool.connection() as connection:
        cursor = await connection.execute(
            SQL["local_members"],
            {"room_id": room_id, "ending": f":{server_name}", "first": list(first), "most": most},
        )
        return [row[0] for row in await cursor.fetchall()]


async def in_every_room(rooms: Iterable[str], change: Callable[[str], Awaitable[None]]) -> None:
    """Does something in many rooms, a few at a time; a room that refuses is logged and passed over."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(room_id: str) -> None:
        async with slots:
            try:
                await change(room_id)
            except MatrixError as error:
                log.info("a room refused a change of all rooms", room_id=room_id, error=str(error))

    await asyncio.gather(*(one(room_id) for room_id in rooms))
