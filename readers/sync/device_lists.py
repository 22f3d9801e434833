"""Whose devices a client has to look at again: they changed, or their user has come to share a room with it, or does no longer.

Invariant: whoever follows `changed` and `left` knows of every change of whoever shares a room with them. A change after the place
that is told may be told again. Source: client-server API, "Tracking the device list for a user".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import lt
from typing import Any

from psycopg import AsyncConnection

from eventlog.pools import Pool
from readers.sync.inbox import SQL
from readers.sync.reading import read
from readers.sync.users import Change, User

Positions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeviceLists:
    """User ids, as /sync and /keys/changes tell them."""

    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.left)


NOTHING = DeviceLists()


@dataclass(frozen=True, slots=True)
class Moves:
    """Rooms that a user came to, and those they left, with the last change by which they did."""

    joined: frozenset[int]
    left: dict[int, Change]

    @classmethod
    def among(cls, changes: Iterable[Change]) -> Moves:
        """Those among changes of the user's memberships, in order."""
        changes = list(changes)
        joined = frozenset(c.nid for c in changes if c.new == "j" and c.old != "j")
        return cls(joined, {c.nid: c for c in changes if c.old == "j" and c.new != "j"})


async def device_lists(pool: Pool, user: User, since: Positions, changes: Iterable[Change]) -> DeviceLists:
    """What changed after positions, with the user's own membership changes after them. Asks nothing when nobody came or went."""
    moves = Moves.among(changes)
    if any(map(lt, since, user.lists_since)):
        return await changes_from_tables(pool, user.user_id, since, moves)
    if not (moves.joined or moves.left or any(map(lt, since, user.lists_last))):
        return NOTHING
    changed = {other for other, (shard, position) in user.lists.items() if position > since[shard]}
    parted = {other for other, (shard, position) in user.partings.items() if position > since[shard]}
    if not (moves.joined or moves.left or parted):
        return DeviceLists(tuple(changed)) if changed else NOTHING
    return await read(pool, lambda connection: _companions(connection, user.user_id, since, changed, parted, moves))


async def changes_from_tables(pool: Pool, user_id: str, since: Positions, moves: Moves) -> DeviceLists:
    """The same without the caches."""

    async def changes(connection: AsyncConnection) -> DeviceLists:
        cursor = await connection.execute(SQL["list_changes"], {"user_id": user_id, "since": list(since)})
        rows = await cursor.fetchall()
        changed, parted = {row[0] for row in rows if not row[1]}, {row[0] for row in rows if row[1]}
        return await _companions(connection, user_id, since, changed, parted, moves)

    return await read(pool, changes)


async def everybody(pool: Pool, user_id: str) -> DeviceLists:
    """All who share a room with a user, for a client whose knowledge cannot be trusted."""

    async def companions(connection: AsyncConnection) -> DeviceLists:
        cursor = await connection.execute(SQL["all_companions"], {"user_id": user_id})
        return DeviceLists(tuple({user_id, *(row[0] for row in await cursor.fetchall())}))

    return await read(pool, companions)


async def _companions(
    connection: AsyncConnection,
    user_id: str,
    since: Positions,
    changed: set[str],
    parted: set[str],
    moves: Moves,
) -> DeviceLists:
    parameters: dict[str, Any] = {
        "user_id": user_id,
        "joined": list(moves.joined),
        "left": [c.nid for c in moves.left.values()],
        # Who was there when the user left may have left as well by now, which nobody tells a user who is not there.
        "left_at": [c.position for c in moves.left.values()],
        "left_since": [since[c.shard] for c in moves.left.values()],
        "parted": list(parted),
    }
    rows = await (await connection.execute(SQL["companions"], parameters)).fetchall()
    left = {row[0] for row in rows if row[1]}
    return DeviceLists(tuple((changed | {row[0] for row in rows if not row[1]}) - left), tuple(left))
