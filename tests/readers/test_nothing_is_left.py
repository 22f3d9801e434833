"""What was purged or erased is in no table any more, whichever tables there are: all are looked through, row by row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, LiteralString

import pytest
from projected_world import ProjectedWorld, projected
from psycopg import AsyncConnection, sql
from sync_world import user

from eventlog.settings import Retention
from readers.retention.purging import erase_user, purge_history, purge_room
from readers.retention.scrubbing import scrub_redactions
from roomserver.projections import differences

pytestmark = pytest.mark.postgres

ALICE, BOB = user("alice"), user("bob")

TABLES = """
    select n.nspname, c.relname,
           exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'room' and a.attnum > 0)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition
      and n.nspname not in ('pg_catalog', 'information_schema', 'public') and n.nspname not like 'pg_toast%'
"""

# The record of the purge; pushes, which are void without their event and go within a day.
ABOUT_ROOMS: Final = {"eventlog.erasures", "notifications.pushes"}


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[ProjectedWorld]:
    async with projected(provisioned, tmp_path) as made:
        yield made


@pytest.fixture
async def owner(provisioned: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        yield connection


async def mentioning(owner: AsyncConnection, words: str, room: int | None = None) -> set[str]:
    """The tables with a row that holds the words, or is of the room with that number."""
    found = set()
    for schema, name, has_room in await (await owner.execute(TABLES)).fetchall():
        table = sql.Identifier(schema, name)
        query = sql.SQL("select exists (select from {} t where t::text like %s or {})").format(
            table, sql.SQL("t.room = %s") if has_room else sql.SQL("%s::bigint is null and false")
        )
        row = await (await owner.execute(query, [f"%{words}%", room])).fetchone()
        if row is not None and row[0]:
            found.add(f"{schema}.{name}")
    return found


async def count(owner: AsyncConnection, query: LiteralString) -> int:
    row = await (await owner.execute(query)).fetchone()
    assert row is not None
    return int(row[0])


async def lively(here: ProjectedWorld, word: str) -> str:
    """A room in which Alice has said and set all that can be said and set, with the word in it."""
    world = here.world
    room = await world.room(ALICE, name="Pond")
    await world.join(room, BOB)
    await world.member(room, ALICE, ALICE, "join", displayname=f"Alice {word}")
    said = [(await world.say(room, ALICE, f"{word} {n}")).event_id for n in range(6)]
    for relation, content in (
        ({"rel_type": "m.replace", "event_id": said[0]}, {"body": "*", "m.new_content": {"body": f"edited {word}"}}),
        ({"rel_type": "m.thread", "event_id": said[1]}, {"msgtype": "m.text", "body": f"threaded {word}"}),
    ):
        await world.event(room, ALICE, "m.room.message", {**content, "m.relates_to": relation})
    mention = {"msgtype": "m.text", "body": f"you, {word}", "m.mentions": {"user_ids": [BOB]}}
    await world.event(room, ALICE, "m.room.message", mention)
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": said[2], "key": word}}
    await world.event(room, ALICE, "m.reaction", reaction)
    await world.event(room, ALICE, "m.room.redaction", {"redacts": said[3], "reason": word})
    await world.receipt(room, BOB, said[4])
    await world.receipt(room, ALICE, said[5])
    await world.account_data(ALICE, "org.example", {"a": word}, room)
    await world.account_data(ALICE, "org.example", {"a": word})
    await here.profile(ALICE, "displayname", f"Alice {word}")
    await here.settle()
    return room


async def test_of_a_purged_room_no_table_has_anything(here: ProjectedWorld, owner: AsyncConnection) -> None:
    room = await lively(here, "quack")
    other = await lively(here, "honk")
    numbers = dict(await (await owner.execute("select room_id, nid from roomserver.rooms")).fetchall())
    before = await mentioning(owner, room, numbers[room])
    assert {"eventlog.events", "roomserver.state", "search.documents", "notifications.exceptions"} <= before
    await purge_room(owner, room, "test.example", "test", dry_run=False, force=True)
    assert await mentioning(owner, room, numbers[room]) <= ABOUT_ROOMS
    # What Alice is called and keeps outside of rooms is not the room's.
    hers = {"roomserver.profiles", "roomserver.account_data", "userdirectory.users", "eventlog.events"}
    assert await mentioning(owner, "quack") <= hers | ABOUT_ROOMS
    assert await count(owner, "select count(*) from eventlog.events where json like '%quack%' and kind <> 'u'") == 0
    assert {"eventlog.events", "search.documents"} <= await mentioning(owner, other, numbers[other])


async def test_of_what_an_erased_user_said_no_table_has_anything(here: ProjectedWorld, owner: AsyncConnection) -> None:
    await lively(here, "quack")
    before = await mentioning(owner, "quack")
    assert {"eventlog.events", "search.documents", "roomserver.profiles", "userdirectory.users"} <= before
    await erase_user(owner, ALICE, "test", dry_run=False)
    assert await mentioning(owner, "quack") == set()


async def test_of_messages_that_were_purged_no_table_has_anything(here: ProjectedWorld, owner: AsyncConnection) -> None:
    room = await lively(here, "quack")
    await here.world.say(room, ALICE, "last")
    await here.settle()
    await purge_history(owner, room, datetime.now(UTC) + timedelta(hours=1), "test", dry_run=False)
    stays = {"roomserver.account_data", "roomserver.profiles", "userdirectory.users"}
    assert await count(owner, "select count(*) from eventlog.events where json like '%quack%' and kind = 'm'") == 0
    # State stays, and with it the output that tells of it; so do last values.
    assert await mentioning(owner, "quack") <= stays | {"eventlog.events", "eventlog.outputs"}


async def test_what_is_derived_is_what_a_rebuild_makes_whatever_was_taken_out(
    here: ProjectedWorld, owner: AsyncConnection
) -> None:
    """Also what says nothing any more: a reaction or an edit that was redacted, and the daily counts."""
    world, room = here.world, await lively(here, "quack")
    said = (await world.say(room, BOB, "quack?")).event_id
    for relation, content in (
        ({"rel_type": "m.replace", "event_id": said}, {"body": "*", "m.new_content": {"body": "edited"}}),
        ({"rel_type": "m.thread", "event_id": said}, {"msgtype": "m.text", "body": "threaded"}),
    ):
        made = await world.event(room, BOB, "m.room.message", {**content, "m.relates_to": relation})
        await world.event(room, BOB, "m.room.redaction", {"redacts": made.event_id})
    await here.settle()
    while await count(owner, "select activity.fold_v1()"):
        pass
    counted = await count(owner, "select sum(messages) from activity.days")
    assert await differences(owner) == []
    assert await scrub_redactions(owner, Retention(0.0, True, 0.0, 0.0, 0.0, 1e-9)) > 2
    assert await count(owner, "select count(*) from roomserver.threads where room = 1") == 1
    assert await differences(owner) == []
    await erase_user(owner, ALICE, "test", dry_run=False)
    assert await differences(owner) == []
    await purge_history(owner, room, datetime.now(UTC) + timedelta(hours=1), "test", dry_run=False)
    assert await differences(owner) == []
    # That a count is too small is found all the same.
    assert await count(owner, "select sum(messages) from activity.days") == counted
    await owner.execute("update activity.users set changes = changes - 1 where changes > 0")
    assert {one.projection for one in await differences(owner)} == {"activity_users", "activity_rooms", "activity_days"}
