"""Rooms with forks, received from other servers: what the room server stores is what the DAG says."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest
from running_roomserver import judged, receive, running, settings_for

from matrix.state_resolution import resolve
from tests.matrix.room_dag import RoomDag

pytestmark = pytest.mark.postgres


def stored_state(connection: psycopg.Connection, room_id: str, line: int, position: int) -> dict[tuple[str, str], str]:
    rows = connection.execute(
        "select s.type, s.state_key, e.event_id from roomserver.rooms n, roomserver.state_at_v2(n.nid, %s, %s) s,"
        " eventlog.events e where n.room_id = %s and e.id = s.entry",
        [line, position, room_id],
    ).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def assert_stored_as_in_dag(dsn: str, dag: RoomDag, verdicts: dict[str, tuple[str, int, int, str | None]]) -> None:
    with psycopg.connect(dsn) as connection:
        for event_id, event in dag.events.items():
            verdict, line, position, reason = verdicts[event_id]
            assert (verdict == "r") == event.rejected, (event, verdict, reason)
            if event.rejected:
                continue
            assert verdict in ("a", "s"), (event, verdict, reason)
            assert stored_state(connection, dag.room_id, line, position) == dag.state_after[event_id], event
        row = connection.execute(
            "select h.extremities, h.position, h.joined from roomserver.heads h"
            " join roomserver.rooms n on n.nid = h.room where n.room_id = %s",
            [dag.room_id],
        ).fetchone()
        assert row is not None
        extremities, position, joined = row
        current = resolve(dag.room_version, [dag.state_after[e] for e in extremities], dag.events).state
        assert stored_state(connection, dag.room_id, 0, position) == current
        members = {key[1] for key, e in current.items() if key[0] == "m.room.member"}
        stays = {m for m in members if dag.events[current["m.room.member", m]].content["membership"] == "join"}
        assert joined == len(stays)
        rows = connection.execute(
            "select user_id, membership from roomserver.memberships m join roomserver.rooms n on n.nid = m.room"
            " where n.room_id = %s",
            [dag.room_id],
        ).fetchall()
        assert {row[0] for row in rows if row[1] == "j"} == stays


@pytest.mark.parametrize("version", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("1", "6", "11")), "12"])
async def test_a_forked_room_is_stored_with_the_state_of_every_event(
    version: str, provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag(version, 7, servers=3, users_per_server=3).grow(120)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    assert_stored_as_in_dag(provisioned, dag, verdicts)


@pytest.mark.parametrize("seed", [1, 2])
async def test_events_that_come_before_what_they_rest_on_wait_for_it(
    seed: int, provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag("11", seed, servers=3, users_per_server=2).grow(60)
    events = list(dag.events.values())
    shuffled = events[1:]
    random.Random(seed).shuffle(shuffled)
    async with running(settings_for(provisioned, tmp_path)):
        count = receive(provisioned, [events[0], *shuffled])
        verdicts = await judged(provisioned, count)
    assert_stored_as_in_dag(provisioned, dag, verdicts)
    with psycopg.connect(provisioned) as connection:
        assert connection.execute("select count(*) from roomserver.deferred").fetchone() == (0,)


@pytest.mark.slow
async def test_every_resolution_that_was_not_trivial_is_recorded(provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag("11", 3, servers=3, users_per_server=3).grow(120)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        await judged(provisioned, count)
    with psycopg.connect(provisioned) as connection:
        rows = connection.execute(
            "select purpose, inputs::json -> 'conflicts', outcome::json -> 'power_events' from roomserver.resolutions"
        ).fetchall()
    assert {row[0] for row in rows} == {"before", "current"}
    assert all(row[1] for row in rows)


@pytest.mark.slow
async def test_a_large_rooms_resolutions_are_carried_out_aside_and_its_order_is_kept(
    provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag("12", 4, servers=3, users_per_server=3).grow(60)
    other = RoomDag("11", 9, servers=1, users_per_server=3).grow(20)
    async with running(settings_for(provisioned, tmp_path)) as server:
        server.decisions.large_room = 0
        count = receive(provisioned, [*dag.events.values(), *other.events.values()])
        verdicts = await judged(provisioned, count)
    assert_stored_as_in_dag(provisioned, dag, verdicts)
    with psycopg.connect(provisioned) as connection:
        assert connection.execute("select count(*) from roomserver.deferred").fetchone() == (0,)
