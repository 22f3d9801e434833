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


async def device_lists(pool: Pool, user: User, since: Positions, changes: Iterable[Change]) -> DeviceLists:
    """What changed after positions, with the user's own membership changes after them. Asks nothing when nobody came or went."""
    joined = {c.nid for c in changes if c.new == "j" and c.old != "j"}
    gone = {c.nid for c in changes if c.old == "j" and c.new != "j"}
    if any(map(lt, since, user.lists_since)):
        return await changes_from_tables(pool, user.user_id, since, joined, gone)
    if not (joined or gone or any(map(lt, since, user.lists_last))):
        return NOTHING
    changed = {other for other, (shard, position) in user.lists.items() if position > since[shard]}
    parted = {other for other, (shard, position) in user.partings.items() if position > since[shard]}
    if not (joined or gone or parted):
        return DeviceLists(tuple(changed)) if changed else NOTHING
    return await read(pool, lambda connection: _companions(connection, user.user_id, changed, parted, joined, gone))


async def changes_from_tables(
    pool: Pool, user_id: str, since: Positions, joined: Iterable[int], gone: Iterable[int]
) -> DeviceLists:
    """The same without the caches."""

    async def changes(connection: AsyncConnection) -> DeviceLists:
        cursor = await connection.execute(SQL["list_changes"], {"user_id": user_id, "since": list(since)})
        rows = await cursor.fetchall()
        changed, parted = {row[0] for row in rows if not row[1]}, {row[0] for row in rows if row[1]}
        return await _companions(connection, user_id, changed, parted, joined, gone)

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
    changed: set[str],
    parted: set[str],
    joined: Iterable[int],
    gone: Iterable[int],
) -> DeviceLists:
    parameters: dict[str, Any] = {
        "user_id": user_id,
        "joined": list(joined),
        "left": list(gone),
        "parted": list(parted),
    }
    rows = await (await connection.execute(SQL["companions"], parameters)).fetchall()
    left = {row[0] for row in rows if row[1]}
    return DeviceLists(tuple((changed | {row[0] for row in rows if not row[1]}) - left), tuple(left))
