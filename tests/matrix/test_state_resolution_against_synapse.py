"""Generated rooms resolve to the same state here and in Synapse. Prints what was compared."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from peer_environment import synapse_python
from resolution_scenarios import Scenario, outcomes
from room_dag import RoomDag, State

from matrix.state_resolution import missing_auth_events, resolve

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

FAMILIES = ("1", "10", "12")
OTHERS = ("2", "6", "11")


def questions(
    room: RoomDag | Scenario, state_sets: Sequence[tuple[State, ...]], *, persisted: bool
) -> Iterator[dict[str, Any]]:
    """What the oracle reads: the room, its events, and the states to resolve."""
    yield {"room_version": room.room_version.identifier, "room_id": room.room_id}
    for event in room.events.values():
        yield {"pdu": event.pdu, "event_id": event.event_id, "rejected": event.rejected}
    for states in state_sets:
        yield {"state_sets": [sorted(state.values()) for state in states], "persisted": persisted}


def ask_synapse(asked: Iterable[dict[str, Any]]) -> list[list[str]]:
    oracle = Path(__file__).with_name("synapse_oracle.py")
    done = subprocess.run(
        [str(synapse_python()), "-I", str(oracle)],
        input="".join(json.dumps(question) + "\n" for question in asked),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(rooms: Sequence[tuple[RoomDag | Scenario, Sequence[tuple[State, ...]]]], *, persisted: bool) -> None:
    begun = time.perf_counter()
    ours = [
        (states, room, resolve(room.room_version, states, room.events)) for room, asked in rooms for states in asked
    ]
    our_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    theirs = ask_synapse(chain.from_iterable(questions(*each, persisted=persisted) for each in rooms))
    their_seconds = time.perf_counter() - begun
    print(
        f"\nroom version {rooms[0][0].room_version.identifier}: {sum(len(room.events) for room, _ in rooms)} events, "
        f"{len(ours)} resolutions of {sum(len(resolution.full_conflicted_set) for _, _, resolution in ours)} events, "
        f"{sum(len(resolution.refused) for _, _, resolution in ours)} refused; "
        f"{our_seconds:.2f} s here, {their_seconds:.2f} s in Synapse (process and parsing included)"
    )
    assert len(theirs) == len(ours)
    for (states, room, resolution), answer in zip(ours, theirs, strict=True):
        assert sorted(resolution.state.values()) == answer, json.dumps(resolution.record(), indent=1)
        assert not missing_auth_events(room.room_version, states, room.events)


@pytest.mark.parametrize("room_version", FAMILIES + OTHERS)
def test_every_merge_of_a_large_room_has_the_state_that_synapse_gives_it(room_version: str) -> None:
    room = RoomDag(room_version, seed=20_260).grow(2_500)
    room.merge()
    assert len(room.events) > 2_000
    assert len(room.merges) > 200
    compare([(room, room.merges)], persisted=True)


@pytest.mark.parametrize("room_version", FAMILIES)
def test_states_that_a_wrong_server_claims_resolve_as_in_synapse(room_version: str) -> None:
    room = RoomDag(room_version, seed=4_297).grow(2_000)
    room.merge()
    compare([(room, [room.odd_state_sets() for _ in range(200)])], persisted=True)


@pytest.mark.parametrize("room_version", ("10", "12"))
def test_synapse_agrees_when_it_works_out_the_auth_difference_and_the_subgraph_by_itself(room_version: str) -> None:
    rooms: list[tuple[RoomDag, Sequence[tuple[State, ...]]]] = []
    for seed in range(20):
        room = RoomDag(room_version, seed=seed, servers=3, users_per_server=2).grow(30)
        room.merge()
        rooms.append((room, [*room.merges, *(room.odd_state_sets() for _ in range(10))]))
    compare(rooms, persisted=False)


@pytest.mark.parametrize("room_version", FAMILIES + OTHERS)
def test_every_scenario_has_the_outcome_that_it_has_in_synapse(room_version: str) -> None:
    scenarios = [Scenario(name, version) for name, version in outcomes() if version == room_version]
    compare([(scenario, [tuple(scenario.states)]) for scenario in scenarios], persisted=False)
