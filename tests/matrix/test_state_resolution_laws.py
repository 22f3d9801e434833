"""What holds of every resolution, whatever the room: laws over generated rooms."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from room_dag import RoomDag, State

from matrix.events import Event
from matrix.state_resolution import MissingEvents, missing_auth_events, resolve

VERSIONS = ("1", "2", "6", "10", "11", "12")

versions = st.sampled_from(VERSIONS)
seeds = st.integers(0, 2**32)
law = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def room_with_states(room_version: str, seed: int) -> tuple[RoomDag, tuple[State, ...]]:
    """A small room, and states of it to resolve: those of a merge or, half of the time, odd ones."""
    room = RoomDag(room_version, seed, servers=3, users_per_server=3).grow(60)
    room.merge()
    if room.merges and seed % 2:
        return room, room.random.choice(room.merges)
    return room, room.odd_state_sets()


@law
@given(versions, seeds, st.randoms(use_true_random=False))
def test_the_order_and_the_number_of_times_in_which_states_are_given_change_nothing(
    room_version: str, seed: int, shuffle: random.Random
) -> None:
    room, states = room_with_states(room_version, seed)
    shuffled = [dict(shuffle.sample(list(state.items()), len(state))) for state in (*states, *states)]
    shuffle.shuffle(shuffled)
    shuffled_events = dict(shuffle.sample(list(room.events.items()), len(room.events)))
    one = resolve(room.room_version, states, room.events)
    assert resolve(room.room_version, shuffled, shuffled_events) == one


@law
@given(versions, seeds)
def test_states_that_are_equal_resolve_to_themselves_and_need_no_event(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    for state in (*states, resolve(room.room_version, states, room.events).state):
        again = resolve(room.room_version, [state, dict(state)], {})
        assert again.state == state
        assert again.trivial
        assert not missing_auth_events(room.room_version, [state, dict(state)], {})


@law
@given(versions, seeds)
def test_what_every_state_agrees_on_stays(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    resolution = resolve(room.room_version, states, room.events)
    common = set(states[0].items()).intersection(*(state.items() for state in states))
    assert common <= resolution.state.items()
    assert not resolution.conflicted.keys() & {key for key, _ in common}


@law
@given(versions, seeds)
def test_the_state_is_made_of_events_that_took_part_at_their_own_keys(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    resolution = resolve(room.room_version, states, room.events)
    agreed = {event_id for state in states for event_id in state.values()}
    for key, event_id in resolution.state.items():
        event = room.events[event_id]
        assert key == (event.type, event.state_key)
        assert event_id in resolution.full_conflicted_set or event_id in agreed


@law
@given(versions, seeds)
def test_every_event_that_took_part_is_replayed_once_and_nothing_refused_wins_by_replay(
    room_version: str, seed: int
) -> None:
    assume(room_version != "1")
    room, states = room_with_states(room_version, seed)
    resolution = resolve(room.room_version, states, room.events)
    replayed = [*resolution.power_events, *resolution.remaining_events]
    assert len(replayed) == len(set(replayed))
    assert set(replayed) == resolution.full_conflicted_set
    assert resolution.refused.keys() <= set(replayed)
    winners = {resolution.state.get(key) for key in resolution.conflicted}
    assert not winners & resolution.refused.keys()


@law
@given(versions, seeds)
def test_the_replay_of_power_events_never_puts_an_event_before_its_auth_events(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    order = resolve(room.room_version, states, room.events).power_events
    place = {event_id: index for index, event_id in enumerate(order)}
    for event_id in order:
        assert all(place.get(auth, -1) < place[event_id] for auth in room.events[event_id].auth_events)


@law
@given(versions, seeds)
def test_loading_what_is_missing_until_nothing_is_gives_the_same_resolution(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    loaded: dict[str, Event] = {}
    rounds = 0
    while missing := missing_auth_events(room.room_version, states, loaded):
        assert not missing & loaded.keys()
        loaded.update({event_id: room.events[event_id] for event_id in missing})
        rounds += 1
    resolution = resolve(room.room_version, states, loaded)
    assert resolution == resolve(room.room_version, states, room.events)
    assert rounds <= len(room.events)
    if not resolution.trivial:
        for event_id in resolution.full_conflicted_set:
            with pytest.raises(MissingEvents) as error:
                resolve(room.room_version, states, {key: loaded[key] for key in loaded if key != event_id})
            assert event_id in error.value.event_ids


@law
@given(versions, seeds)
def test_the_record_of_a_resolution_is_json_and_names_the_winner_of_each_conflict(room_version: str, seed: int) -> None:
    room, states = room_with_states(room_version, seed)
    resolution = resolve(room.room_version, states, room.events)
    record = json.loads(json.dumps(resolution.record()))
    assert record["algorithm"] == room.room_version.state_resolution.value
    assert {(each["type"], each["state_key"]): each["winner"] for each in record["conflicts"]} == {
        key: resolution.state.get(key) for key in resolution.conflicted
    }


@law
@given(versions, seeds)
def test_the_state_of_a_linear_history_is_its_replay(room_version: str, seed: int) -> None:
    room = RoomDag(room_version, seed, servers=1, users_per_server=6).grow(80)
    assert not room.merges
    replayed: dict[tuple[str, str], str] = {}
    for event in room.events.values():
        if event.state_key is not None and not event.rejected:
            replayed[event.type, event.state_key] = event.event_id
    assert room.merge() == replayed


def test_no_states_resolve_to_no_state() -> None:
    assert resolve(RoomDag("12", 1).room_version, [], {}).state == {}
