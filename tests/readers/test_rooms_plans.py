"""The plans behind the room endpoints: a page costs what it holds, whatever the room and the log hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from judged_rooms import Log, Room
from psycopg import sql

from eventlog.pools import PLANNING
from eventlog.queries import Queries

pytestmark = pytest.mark.postgres

SQL = Queries("readers.rooms", "rooms.sql")
ALICE, BOB = "@alice:test.example", "@bob:test.example"
MESSAGES = 4_000
DAY = 86_400_000
# Rows that any step of a plan may touch for a page of 100 events.
FEW = 330


def make_month(owner: psycopg.Connection[Any], table: str, month: int) -> None:
    """Makes the partition of a month of 2026, unless there is one."""
    begin, end = (
        int(datetime(2026 + number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000) << 20
        for number in (month - 1, month)
    )
    name = f"{table}_2026{month:02}01"
    if owner.execute("select to_regclass(%s)", [f"eventlog.{name}"]).fetchone() == (None,):
        owner.execute(
            sql.SQL("create table {} partition of {} for values from ({}) to ({})").format(
                sql.Identifier("eventlog", name),
                sql.Identifier("eventlog", table),
                sql.Literal(begin),
                sql.Literal(end),
            )
        )


@pytest.fixture
def long_room(database: str) -> Iterator[tuple[psycopg.Connection[Any], Room]]:
    """A session as the pools make them, and a room whose messages lie in many partitions."""
    with psycopg.connect(database, autocommit=True) as owner:
        for month in range(1, 13):
            for table in ("events_m", "outputs_m"):
                make_month(owner, table, month)
    with Log(database) as log:
        room, other = Room(log, ALICE), Room(log, BOB)
        room.member(BOB, "join")
        for number in range(MESSAGES):
            log.clock += 300 * DAY // MESSAGES
            (room if number % 4 else other).message(BOB, f"{number}")
        log.commit()
    with psycopg.connect(
        database, autocommit=True, options=" ".join(f"-c {name}={value}" for name, value in PLANNING.items())
    ) as connection:
        connection.execute("analyze")
        yield connection, room


def touched(connection: psycopg.Connection[Any], query: str, **values: object) -> tuple[float, set[str]]:
    """The most rows a step of the plan touched, and the kinds of steps that ran on a table."""
    row = connection.execute(b"explain (analyze, format json) " + SQL[query].encode(), values, prepare=True).fetchone()
    assert row is not None
    nodes: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        nodes.append(node)
        for inner in node.get("Plans", []):
            walk(inner)

    walk(row[0][0]["Plan"])
    ran = [node for node in nodes if node["Actual Loops"]]
    rows = max(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in ran)
    return rows, {node["Node Type"] for node in ran if "Relation Name" in node}


@pytest.mark.parametrize("query", ["page_backwards", "page_forwards"])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_page_reads_as_many_rows_as_it_has(
    long_room: tuple[psycopg.Connection[Any], Room], query: str, part: float
) -> None:
    connection, room = long_room
    place = int(MESSAGES * part)
    bounds = {"upto": place, "after": -(2**62)} if query == "page_backwards" else {"upto": 2**62, "after": place}
    rows, steps = touched(connection, query, room_id=room.room_id, most=101, **bounds)
    assert rows <= FEW
    assert "Seq Scan" not in steps


def test_looking_for_one_event_reads_one_of_each(long_room: tuple[psycopg.Connection[Any], Room]) -> None:
    connection, room = long_room
    assert room.last is not None
    rows, steps = touched(connection, "event", room_id=room.room_id, event_id=room.last)
    assert rows == 1
    assert "Seq Scan" not in steps


def test_access_reads_the_keys_that_decide_it(long_room: tuple[psycopg.Connection[Any], Room]) -> None:
    connection, room = long_room
    rows, steps = touched(connection, "access", room_id=room.room_id, user_id=BOB)
    assert rows <= 2
    assert "Seq Scan" not in steps


def test_a_filter_looks_through_no_more_than_its_bound(long_room: tuple[psycopg.Connection[Any], Room]) -> None:
    connection, room = long_room
    rows, _ = touched(
        connection,
        "chosen_backwards",
        room_id=room.room_id,
        upto=2**62,
        after=-(2**62),
        scan=200,
        most=11,
        types=["m.room.name"],
        not_types=[],
        senders=None,
        not_senders=[],
    )
    assert rows <= 3 * 200
