"""What waits for missing events or for its room's resolution, whatever becomes of the process that let it wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
from running_roomserver import judged, receive, running, settings_for
from structlog.testing import capture_logs

from matrix.events import Event
from roomserver.effects import Effects
from roomserver.forks import Fork
from roomserver.service import RoomServer
from tests.matrix.room_dag import RoomDag
from tests.roomserver.test_forks import assert_stored_as_in_dag

pytestmark = pytest.mark.postgres

SECONDS = 60.0


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


async def until(dsn: str, query: str) -> None:
    """Waits until a query answers with a row."""
    end = time.monotonic() + SECONDS
    while not await asyncio.to_thread(rows, dsn, query):
        assert time.monotonic() < end, rows(dsn, "select * from roomserver.deferred")
        await asyncio.sleep(0.05)


def leave_as_killed(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update eventlog.positions set clean = false where component = 'roomserver'")


def leaves(events: Sequence[Event]) -> set[str]:
    """Events that no other one follows."""
    return {event.event_id for event in events} - {previous for event in events for previous in event.prev_events}


def nothing_is_left(dsn: str) -> bool:
    return (
        rows(dsn, "select entry from roomserver.deferred union all select entry from roomserver.attempts limit 5") == []
    )


@pytest.mark.parametrize("killed", [False, True])
async def test_what_waits_for_missing_events_is_found_again_by_every_room_server_that_follows(
    killed: bool, provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag("11", 1, servers=3, users_per_server=2).grow(60)
    events = list(dag.events.values())
    random.Random(1).shuffle(events)
    count = 0
    for start in range(0, len(events), 12):
        count += receive(provisioned, events[start : start + 12])
        if killed:
            leave_as_killed(provisioned)
        async with running(settings_for(provisioned, tmp_path)):
            await until(
                provisioned,
                f"select {count} where (select count(*) from eventlog.outputs)"
                f" + (select count(*) from roomserver.deferred) = {count}",
            )
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    assert_stored_as_in_dag(provisioned, dag, verdicts)
    assert nothing_is_left(provisioned)


async def test_a_room_that_stood_still_when_its_room_server_ended_goes_on_with_the_next(
    provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag("12", 4, servers=3, users_per_server=3).grow(60)
    settings = settings_for(provisioned, tmp_path)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    server: RoomServer
    async with running(settings) as server:
        server.decisions.large_room = 0
        server.decisions._resolver = never  # type: ignore[assignment]
        count = receive(provisioned, dag.events.values())
        await until(provisioned, "select entry from roomserver.deferred where reason = 'order'")
    async with running(settings) as server:
        server.decisions.large_room = 0
        verdicts = await judged(provisioned, count)
    assert_stored_as_in_dag(provisioned, dag, verdicts)
    assert nothing_is_left(provisioned)


@pytest.mark.parametrize("aside", [False, True])
async def test_an_event_off_the_main_line_that_cannot_be_decided_is_set_aside_and_its_room_goes_on(
    aside: bool, provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = RoomDag("11", 7, servers=3, users_per_server=3).grow(60)
    events = list(dag.events.values())
    poison = leaves(events)
    real = Fork.apply
    failed: list[str] = []

    def poisoned(fork: Fork, effects: Effects) -> str:
        if fork.event.event_id in poison:
            failed.append(fork.event.event_id)
            raise RuntimeError("cannot digest this")
        return real(fork, effects)

    monkeypatch.setattr(Fork, "apply", poisoned)
    # Captured, for printing tracebacks with all that is in their frames takes longer than everything else.
    with capture_logs():
        async with running(settings_for(provisioned, tmp_path)) as server:
            if aside:
                server.decisions.large_room = 0
            # The poison first: what follows it here does not rest on it.
            events.sort(key=lambda event: event.event_id in poison)
            count = receive(provisioned, events)
            verdicts = await judged(provisioned, count)
    assert failed
    assert rows(provisioned, "select event_id, error from roomserver.quarantine order by event_id") == [
        (event_id, "RuntimeError: cannot digest this") for event_id in sorted(set(failed))
    ]
    assert {event_id for event_id, one in verdicts.items() if one[0] == "q"} == set(failed)
    assert nothing_is_left(provisioned)
