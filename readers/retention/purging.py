"""What goes on request: a room, a room's history, what a user said; and what a room's own policy lets go.

Invariant: history is purged without what a room is built on (`eventlog.purgeable`), and never its state; a room goes as a whole and
only when nobody of this server is in it; a user's messages and memberships lose their content and keep their place.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from psycopg import AsyncConnection

from eventlog.faults import Failure, Policy
from readers.retention.policies import Policies
from readers.retention.record import PART, SQL, Record
from readers.retention.scrubbing import Content, scrub

FIRST: Final = -(1 << 62)
"""Before every place of a timeline."""
ROWS: Final = 2_000
"""Rows without content that one transaction removes."""


class Refused(Failure):
    """It cannot be done as things are."""

    policy = Policy.STOP


async def purge_history(
    connection: AsyncConnection, room_id: str, before: datetime, by: str, *, dry_run: bool
) -> tuple[int, int]:
    """Purges a room's messages that came before a moment: how many go, how many stay. Raises Refused for an unknown room."""
    room, _ = await _room(connection, room_id, "")
    row = await (await connection.execute(SQL["id_at"], {"moment": before})).fetchone()
    assert row is not None
    if dry_run:
        return await _purge(connection, room, row[0], None)
    record = await Record.begin(connection, "history", room_id, by, {"before": before.isoformat()})
    gone, kept = await _purge(connection, room, row[0], record)
    if gone:
        # Redactions of what has gone were kept beside it.
        more, kept = await _purge(connection, room, row[0], record)
        gone += more
    await record.count(kept=kept)
    await forget_claims(connection)
    await record.end()
    return gone, kept


async def apply_room_policies(connection: AsyncConnection, policies: Policies) -> int:
    """Purges what rooms' own policies let go; returns how many messages."""
    gone = 0
    for one in policies.rooms:
        row = await (await connection.execute(SQL["id_before"], {"days": one.days})).fetchone()
        assert row is not None
        part, kept = await _purge(connection, one.room, row[0], None, remove=True)
        if part:
            parameters = {"action": "policy", "subject": one.room_id, "events": part, "kept": kept}
            await connection.execute(SQL["count_today"], parameters)
        gone += part
    return gone


async def purge_room(
    connection: AsyncConnection, room_id: str, server_name: str, by: str, *, dry_run: bool, force: bool = False
) -> dict[str, int]:
    """Removes everything there is of a room: how many entries by kind. Raises Refused while members of this server are in it.

    A room of which only entries are left is purged to the end.
    """
    cursor = await connection.execute(SQL["count_room"], {"room_id": room_id})
    counts: dict[str, int] = dict(await cursor.fetchall())
    row = await (await connection.execute(SQL["room"], {"room_id": room_id, "server": server_name})).fetchone()
    if row is None and not counts:
        raise Refused(f"the room {room_id} is not known here", "give the whole id of a room, as history.rooms has it")
    if row is not None and row[1] and not force:
        raise Refused(f"{row[1]} of this server are in {room_id} or invited", "let them leave first")
    if dry_run:
        return counts
    await connection.execute(SQL["take_time"])
    record = await Record.begin(connection, "room", room_id, by, counts)
    while row is not None:
        removed = await (await connection.execute(SQL["purge_room"], {"room_id": room_id, "most": ROWS})).fetchone()
        if removed is None or not removed[0]:
            break
    async with connection.cursor("entries", withhold=True) as entries:
        await entries.execute(SQL["events_of_room"], {"room_id": room_id})
        while rows := await entries.fetchmany(PART):
            for kind in {kind for _, kind in rows}:
                await _remove(connection, kind, [entry for entry, of_kind in rows if of_kind == kind], record)
    await forget_claims(connection)
    await record.end()
    return counts


async def erase_user(connection: AsyncConnection, user_id: str, by: str, *, dry_run: bool) -> dict[str, int]:
    """Scrubs what a user said and was called, and removes their last values: how many entries by kind.

    Raises Refused for an account that is in use.
    """
    row = await (await connection.execute(SQL["account"], {"user_id": user_id})).fetchone()
    if row is not None and row[0] is None:
        raise Refused(f"the account {user_id} is in use", f"deactivate it first: walden user deactivate {user_id}")
    cursor = await connection.execute(SQL["count_user"], {"user_id": user_id})
    counts: dict[str, int] = dict(await cursor.fetchall())
    if row is None and not counts:
        raise Refused(f"there is no account {user_id}, and the log has nothing of it", "see walden user list")
    if dry_run:
        return counts
    await connection.execute(SQL["take_time"])
    record = await Record.begin(connection, "user", user_id, by, counts)
    async with connection.cursor("entries", withhold=True) as entries:
        await entries.execute(SQL["events_of_user"], {"user_id": user_id})
        while rows := await entries.fetchmany(PART):
            async with connection.transaction():
                events = [
                    Content(entry, document, version)
                    for entry, kind, document, version in rows
                    if kind != "u" and version
                ]
                await record.count(events=await scrub(connection, events))
            await _remove(connection, "u", [entry for entry, kind, _, _ in rows if kind == "u"], record)
    await connection.execute(SQL["purge_user"], {"user_id": user_id})
    await record.end()
    return counts


async def forget_claims(connection: AsyncConnection) -> None:
    """Removes the transaction ids of entries that have gone: sent again, they are events again."""
    while (await connection.execute(SQL["forget_claims"], {"most": ROWS})).rowcount == ROWS:
        pass


async def _room(connection: AsyncConnection, room_id: str, server_name: str) -> tuple[int, int]:
    row = await (await connection.execute(SQL["room"], {"room_id": room_id, "server": server_name})).fetchone()
    if row is None:
        raise Refused(f"the room {room_id} is not known here", "give the whole id of a room, as history.rooms has it")
    return row[0], row[1]


async def _purge(
    connection: AsyncConnection, room: int, before: int, record: Record | None, *, remove: bool = False
) -> tuple[int, int]:
    """Messages of a room before an entry: how many go and how many stay. They are removed with a record, or when told so."""
    gone = kept = 0
    after = FIRST
    while True:
        parameters = {"room": room, "before": before, "after": after, "most": PART}
        rows = await (await connection.execute(SQL["purgeable"], parameters)).fetchall()
        going = [entry for entry, _, stays in rows if not stays]
        if record is not None or remove:
            await _remove(connection, "m", going, record)
        gone += len(going)
        kept += len(rows) - len(going)
        if len(rows) < PART:
            return gone, kept
        after = rows[-1][1]


async def _remove(connection: AsyncConnection, kind: str, entries: list[int], record: Record | None) -> None:
    if not entries:
        return
    async with connection.transaction():
        await connection.execute(SQL["remove"], {"kind": kind, "entries": entries})
        if record is not None:
            await record.count(events=len(entries))
