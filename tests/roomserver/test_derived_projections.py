"""Threads and daily activity: what they say, that they follow what they are made of, and that they are mended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from judged_rooms import Log, Room
from psycopg import AsyncConnection, sql

from roomserver.projections import DERIVED, differences, rebuild

pytestmark = pytest.mark.postgres

ALICE, BOB = "@alice:test.example", "@bob:test.example"
DAY = 86_400_000


@pytest.fixture
def log(database: str) -> Iterator[Log]:
    with Log(database) as log:
        yield log


def lived(log: Log) -> Room:
    """A room with two threads, over three days, and another one."""
    room, other = Room(log, ALICE), Room(log, BOB)
    room.member(BOB, "join")
    for _ in range(3):
        roots = [room.message(ALICE, "root"), other.message(BOB, "root")]
        for root, where in zip(roots, (room, other), strict=True):
            where.relate(BOB, root, "m.thread", kind="m.room.message")
            where.relate(BOB, root, "m.thread", kind="m.room.message")
            where.relate(BOB, root, "m.annotation", key="+")
        room.edit(ALICE, roots[0], "edited")
        log.clock += DAY
    log.commit()
    return room


def rows(log: Log, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return log.connection.execute(query, values).fetchall()


def fold(log: Log, most: int = 2000) -> int:
    ((count,),) = rows(log, "select activity.fold_v1(%s)", most)
    return int(count)


def test_the_first_reply_begins_a_thread_also_when_it_comes_later(log: Log) -> None:
    room = Room(log, ALICE)
    root = room.message(ALICE, "root")
    first = room.relate(ALICE, root, "m.thread", kind="m.room.message")
    room.relate(ALICE, root, "m.thread", kind="m.room.message")
    log.commit()
    assert rows(log, "select root, begun, event_id from roomserver.threads") == [
        (root.event_id, first.position, first.event_id)
    ]
    log.connection.execute(
        "insert into roomserver.relations values (%s, 'm.thread', -3, 1, %s, '$old', %s)",
        [root.event_id, room.nid, BOB],
    )
    assert rows(log, "select begun, event_id from roomserver.threads") == [(-3, "$old")]


def test_the_next_reply_begins_the_thread_when_the_first_has_left_the_log_and_without_any_it_ends(log: Log) -> None:
    room = Room(log, ALICE)
    root = room.message(ALICE, "root")
    first, second = (room.relate(ALICE, root, "m.thread", kind="m.room.message") for _ in range(2))
    log.commit()
    log.connection.execute("delete from roomserver.relations where event_id = %s", [first.event_id])
    assert rows(log, "select begun, event_id from roomserver.threads") == [(second.position, second.event_id)]
    log.connection.execute("delete from roomserver.relations")
    assert rows(log, "select root from roomserver.threads") == []


@pytest.mark.parametrize("most", [1, 7, 2000])
def test_activity_is_counted_once_however_it_is_cut(log: Log, most: int) -> None:
    room = lived(log)
    while fold(log, most):
        pass
    assert fold(log, most) == 0
    days = rows(
        log,
        "select messages, edits, reactions, changes, senders from activity.rooms where room = %s order by day",
        room.nid,
    )
    assert days == [(3, 1, 1, 5, 2), (3, 1, 1, 0, 2), (3, 1, 1, 0, 2)]
    total = rows(log, "select messages, edits, reactions, changes, senders, rooms from activity.days order by day")
    assert total == [(6, 1, 2, 9, 2, 2), (6, 1, 2, 0, 2, 2), (6, 1, 2, 0, 2, 2)]
    mine = rows(
        log,
        "select messages, edits, reactions, changes from activity.users where sender = %s and room = %s order by day",
        BOB,
        room.nid,
    )
    assert mine == [(2, 0, 1, 1), (2, 0, 1, 0), (2, 0, 1, 0)]


def test_what_was_refused_is_no_activity(log: Log) -> None:
    room = Room(log, ALICE)
    for verdict in "osrtq":
        room.send(ALICE, "m.room.message", {"msgtype": "m.text", "body": verdict}, verdict=verdict)
    log.commit()
    fold(log)
    assert rows(log, "select messages, changes from activity.days") == [(0, 4)]


def test_two_maintenance_processes_count_nothing_twice(log: Log, database: str) -> None:
    lived(log)
    fold(log, 1)
    with psycopg.connect(database) as other:
        other.execute("select activity.fold_v1(3)")
        # The first has not committed: the second passes by.
        assert fold(log, 2000) == 0
    while fold(log, 2000):
        pass
    assert rows(log, "select sum(messages) from activity.days") == [(18,)]


def test_a_purged_room_takes_its_counts_with_it(log: Log) -> None:
    room = lived(log)
    fold(log)
    for table in ("memberships", "heads"):
        log.connection.execute(
            sql.SQL("delete from roomserver.{} where room = %s").format(sql.Identifier(table)), [room.nid]
        )
    log.connection.execute("delete from roomserver.rooms where nid = %s", [room.nid])
    assert rows(log, "select count(*) from activity.rooms where room = %s", room.nid) == [(0,)]
    assert rows(log, "select messages, senders, rooms from activity.days order by day") == [(3, 1, 1)] * 3


async def test_derived_projections_are_found_wrong_and_mended(log: Log, database: str) -> None:
    lived(log)
    fold(log, 7)
    while fold(log):
        pass
    changes = {
        "threads": "set begun = begun + 1",
        "activity_users": "set messages = messages + 1",
        "activity_rooms": "set senders = senders + 1",
        "activity_days": "set rooms = rooms + 1",
    }
    log.install()
    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        assert [one for one in await differences(connection) if one.projection in DERIVED] == []
        for name, table in DERIVED.items():
            where = sql.Identifier(*table.split("."))
            for verb in (sql.SQL("update {} " + changes[name]), sql.SQL("delete from {}")):
                count = (await connection.execute(verb.format(where))).rowcount
                found = await differences(connection, projection=name, most=1000)
                assert len(found) == count > 0
                assert await rebuild(connection, name) == count
                assert await differences(connection, projection=name) == []


async def test_days_that_have_left_the_log_keep_their_counts(log: Log, database: str) -> None:
    lived(log)
    fold(log)
    (day, entry) = rows(
        log, "select day, eventlog.id_at(day + interval '1 day') from activity.days order by day limit 1"
    )[0]
    log.connection.execute("insert into eventlog.edges values ('m', 0, %s, 1)", [entry])
    log.connection.execute("update activity.users set messages = 99 where day <= %s", [day])
    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        assert await differences(connection, projection="activity_users") == []
    assert day < datetime.now(UTC).date()
