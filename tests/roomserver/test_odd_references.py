"""Events of other servers that name what they should not, or more than is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from local_rooms import talk
from running_roomserver import judged, receive, running, settings_for

from matrix.auth_rules import auth_event_keys
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from roomserver import forks
from roomserver.rooms import KNOWN_EVENTS
from tests.matrix.room_dag import RoomDag

pytestmark = pytest.mark.postgres


def message(dag: RoomDag, prev_events: Sequence[str], auth_events: Sequence[str] | None = None) -> Event:
    """A message of the room's creator."""
    sender = dag.creator
    state = dag.state_after[prev_events[0]]
    keys = auth_event_keys("m.room.message", sender, None, {}, dag.room_version)
    selected = [state[key] for key in keys if key in state] if auth_events is None else [*auth_events]
    event = dag._event(dag.servers[0], sender, "m.room.message", None, {}, list(prev_events), selected)
    dag.events[event.event_id] = event
    dag.state_after[event.event_id] = state
    return event


def deferred(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        (count,) = connection.execute("select count(*) from roomserver.deferred").fetchone() or (0,)
    return int(count)


async def test_a_batch_may_name_more_events_than_are_remembered(provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag("11", 1, servers=1, users_per_server=2)
    chain = [message(dag, sorted(dag.extremities[dag.servers[0]]))]
    for _ in range(KNOWN_EVENTS + 20):
        chain.append(message(dag, [chain[-1].event_id]))
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        await judged(provisioned, count)
    forks = [message(dag, [event.event_id]) for event in chain]
    count += receive(provisioned, forks)
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    assert {verdicts[event.event_id][0] for event in forks} == {"a"}
    assert deferred(provisioned) == 0


@pytest.mark.parametrize("forked", [False, True])
async def test_what_names_events_of_another_room_is_rejected_and_does_not_wait(
    forked: bool, provisioned: str, tmp_path: Path
) -> None:
    # Neither parses as the other's version.
    here, there = RoomDag("11", 1, servers=1, users_per_server=1), RoomDag("12", 2, servers=1, users_per_server=1)
    create, theirs = next(iter(there.events)), next(reversed(there.events))
    ours = next(reversed(here.events))
    base = [*here.events.values(), *there.events.values()]
    here.events |= there.events
    if forked:
        base.append(message(here, [ours]))
    selected = list(message(here, [ours]).auth_events)
    bad = [
        message(here, [ours, theirs]),
        message(here, [ours, create]),
        message(here, [ours], [*selected, create]),
        message(here, [ours], [*selected, theirs]),
    ]
    good = message(here, [ours])
    count = receive(provisioned, base)
    async with running(settings_for(provisioned, tmp_path)):
        await judged(provisioned, count)
    # In one batch with an event of the other room that names the same.
    proper = message(there, [theirs])
    count += receive(provisioned, [*bad, proper, good])
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    assert [(verdicts[event.event_id][0], "another room" in str(verdicts[event.event_id][3])) for event in bad] == [
        ("r", True)
    ] * 4
    assert verdicts[good.event_id][0] == verdicts[proper.event_id][0] == "a"
    assert deferred(provisioned) == 0


@pytest.mark.parametrize("named", ["99", ["x"], None, 5, {}])
async def test_a_room_of_an_unknown_version_is_rejected(named: Any, provisioned: str, tmp_path: Path) -> None:
    pdu: dict[str, Any] = {
        "type": "m.room.create",
        "state_key": "",
        "sender": "@a:x",
        "room_id": "!r:x",
        "event_id": "$c:x",
        "content": {"creator": "@a:x", "room_version": named},
        "depth": 1,
        "origin_server_ts": 1,
        "prev_events": [],
        "auth_events": [],
        "hashes": {"sha256": "x"},
        "signatures": {},
    }
    async with running(settings_for(provisioned, tmp_path)):
        count = receive(provisioned, [Event.from_pdu(pdu, ROOM_VERSIONS["1"])])
        verdicts = await judged(provisioned, count)
    assert verdicts["$c:x"][0] == "r"


@pytest.mark.slow
@pytest.mark.parametrize("aside", [False, True])
async def test_a_chain_of_many_changes_of_a_name_is_resolved(
    aside: bool, provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "MAX_ROUNDS", 30)
    dag = RoomDag("11", 1, servers=1, users_per_server=2)
    user, tip = dag.everyone[1], next(reversed(dag.events))
    begun = tip

    def renamed(name: str, prev_event: str) -> Event:
        state = dag.state_after[prev_event]
        content = {"membership": "join", "displayname": name}
        keys = auth_event_keys("m.room.member", user, user, content, dag.room_version)
        selected = [state[key] for key in keys if key in state]
        event = dag._event(dag.servers[0], user, "m.room.member", user, content, [prev_event], selected)
        dag.events[event.event_id] = event
        dag.state_after[event.event_id] = {**state, ("m.room.member", user): event.event_id}
        return event

    for number in range(60):
        tip = renamed(f"main {number}", tip).event_id
    other = begun
    for number in range(60):
        # A branch as long, whose every event is off the main line.
        other = renamed(f"branch {number}", other).event_id
    last = renamed("last", begun)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)) as server:
        if aside:
            server.decisions.large_room = 0
        verdicts = await judged(provisioned, count)
    assert {verdict for verdict, *_ in verdicts.values()} == {"a"}
    with psycopg.connect(provisioned) as connection:
        (stored,) = connection.execute("select extremities from roomserver.heads").fetchone() or ([],)
        assert {tip, other, last.event_id} <= set(stored)


@pytest.mark.parametrize("version", ["1", "11"])
async def test_a_room_whose_depth_is_at_the_limit_goes_on(version: str, provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    limit = 2**63 - 1 if version == "1" else 2**53 - 1
    async with running(settings), talk(settings) as here:
        room_id = await here.room(version)
        with psycopg.connect(provisioned, autocommit=True) as connection:
            # As if another server had sent such an event.
            connection.execute("update roomserver.heads set depth = %s", [limit])
            connection.execute("update eventlog.tips set depth = %s", [limit])
    async with running(settings), talk(settings) as here:
        for body in ("one", "two"):
            await here.writer.send([here.message(room_id, body)])
    with psycopg.connect(provisioned) as connection:
        rows = connection.execute(
            "select json::json ->> 'depth' from eventlog.events where type = 'm.room.message'"
        ).fetchall()
    assert rows == [(str(limit),)] * 2
