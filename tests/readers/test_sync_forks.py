"""Rooms that fork and merge: clients are told the state that is resolved, and nothing that the state at an event hides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import psycopg
import pytest
from sync_world import Client, caught_up, settings_of, sync_process, world

from matrix.events import Event
from matrix.visibility import history_visibility_of, user_may_see
from tests.matrix.room_dag import RoomDag
from tests.roomserver.running_roomserver import judged, receive

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def member_at(dag: RoomDag, state: dict[tuple[str, str], str], user_id: str) -> str:
    event_id = state.get(("m.room.member", user_id))
    return "leave" if event_id is None else str(dag.events[event_id].content["membership"])


def may_see(dag: RoomDag, event: Event, user_id: str, joined_since: bool) -> bool:
    """By the state before the event in the room's graph, and by whether the user was in the room thereafter."""
    before = dag.state_before(event.prev_events) if event.prev_events else {}
    setting = before.get(("m.room.history_visibility", ""))
    visibility = history_visibility_of(None if setting is None else dag.events[setting])
    membership = member_at(dag, before, user_id)
    # An invite that ends is told by its end, whatever the event's own branch knew of it.
    own = event.type == "m.room.member" and event.state_key == user_id
    return own or user_may_see(event, user_id, visibility=visibility, membership=membership, joined_since=joined_since)


def pieces(events: Iterable[Event], size: int) -> list[list[Event]]:
    found: list[list[Event]] = [[]]
    for event in events:
        if len(found[-1]) == size:
            found.append([])
        found[-1].append(event)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3, 5, 8])
async def test_clients_of_a_forking_room_are_told_its_resolved_state(
    seed: int, provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag("11", seed, servers=3, users_per_server=2).grow(120)
    settings = settings_of(provisioned, tmp_path)
    async with world(settings) as here, sync_process(settings) as elsewhere:
        clients = [
            Client(service, user_id, f"{n}", {"room": {"timeline": {"limit": limit}}}, True)
            for n, (service, limit) in enumerate([(here.sync, 50), (elsewhere, 3)])
            for user_id in dag.everyone
        ]
        for number, piece in enumerate(pieces(dag.events.values(), 7)):
            receive(provisioned, piece)
            await judged(provisioned, 7 * number + len(piece))
            await caught_up(here.sync)
            await caught_up(elsewhere)
            await asyncio.gather(*(client.sync() for client in clients))
        for client in clients:
            await client.settle()
        with psycopg.connect(provisioned) as connection:
            current = {
                (kind, state_key): event_id
                for kind, state_key, event_id in connection.execute(
                    "select s.type, s.state_key, e.event_id from roomserver.state s join eventlog.events e on e.id = s.entry"
                    " where s.line = 0 and s.valid_to = 9223372036854775807"
                ).fetchall()
            }
            positions = dict(
                connection.execute(
                    "select e.event_id, o.position from eventlog.outputs o join eventlog.events e on e.id = o.entry"
                ).fetchall()
            )
            last_joined = dict(
                connection.execute(
                    "select state_key, max(valid_to) from roomserver.state"
                    " where line = 0 and type = 'm.room.member' and membership = 'j' group by state_key"
                ).fetchall()
            )
        checked = 0
        async with sync_process(settings) as service:
            for user_id in dag.everyone:
                fresh = Client(service, user_id, "NEW", state_after=True)
                await fresh.sync()
                for client in [client for client in clients if client.user_id == user_id]:
                    for event_id in client.received | fresh.received:
                        joined_since = last_joined.get(user_id, 0) > positions[event_id]
                        assert may_see(dag, dag.events[event_id], user_id, joined_since), (event_id, user_id)
                    if member_at(dag, current, user_id) == "join":
                        assert fresh.rooms[dag.room_id].state == current
                        # That a resolution took a key away is nothing a client can be told.
                        known = client.rooms[dag.room_id].state
                        assert {key: known.get(key) for key in current} == current
                        checked += 1
        assert checked


async def test_clients_are_not_sent_a_redaction_that_does_not_apply(provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag("11", 1, servers=2, users_per_server=1)
    settings = settings_of(provisioned, tmp_path)
    other = dag.everyone[1]
    state = dag.state_before(dag.extremities[dag.servers[0]])
    levels = dict(dag.events[state["m.room.power_levels", ""]].content)
    # Who has as much power as the creator gives it up.
    dag._send(dag.servers[1], other, "m.room.power_levels", "", {**levels, "users": {dag.creator: 100}})
    dag._hear(dag.servers[0], dag.servers[1])
    dag._send(dag.servers[0], dag.creator, "m.room.message", None, {"body": "mine"})
    (target,) = dag.extremities[dag.servers[0]]
    dag._hear(dag.servers[1], dag.servers[0])
    dag._send(dag.servers[1], other, "m.room.redaction", None, {"redacts": target})
    (redaction,) = dag.extremities[dag.servers[1]]
    dag._send(dag.servers[1], other, "m.room.message", None, {"body": "after"})
    (after,) = dag.extremities[dag.servers[1]]
    assert redaction != target
    async with world(settings) as here:
        waiting = Client(here.sync, dag.creator)
        events = list(dag.events.values())
        receive(provisioned, events[:-2])
        await judged(provisioned, len(events) - 2)
        await waiting.settle()
        receive(provisioned, events[-2:])
        await judged(provisioned, len(events))
        await waiting.settle()
        fresh = Client(here.sync, dag.creator, "NEW")
        await fresh.settle()
        for client in (waiting, fresh):
            assert {target, after} <= client.received.keys() and redaction not in client.received
            assert client.received[target]["content"] == {"body": "mine"}
