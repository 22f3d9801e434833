"""Large rooms resolve in about a second, deep auth chains need no stack, and what can be left unread is. Prints figures."""

from __future__ import annotations

import time
from typing import Any

import pytest

from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from matrix.state_resolution import Resolution, missing_auth_events, resolve

State = dict[tuple[str, str], str]


class LargeRoom:
    """A room of one admin and many members, whose events are made as fast as can be. Ids are names."""

    def __init__(self, room_version: str) -> None:
        self.rules = ROOM_VERSIONS[room_version]
        self.events: dict[str, Event] = {}
        self.state: State = {}
        self.add("m.room.create", "", {"creator": "@admin:x"})
        self.add("m.room.member", "@admin:x", {"membership": "join"})
        self.levels({"@mod:x": 50})
        self.add("m.room.join_rules", "", {"join_rule": "public"})
        self.join("@mod:x")

    def add(self, type: str, state_key: str, content: dict[str, Any], sender: str = "@admin:x") -> None:
        keys = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", sender)]
        if type == "m.room.member":
            keys += [("m.room.member", state_key), ("m.room.join_rules", "")]
        if not self.rules.create_event_in_auth_events:
            del keys[0]
        auth_events = [self.state[key] for key in dict.fromkeys(keys) if key in self.state]
        number = len(self.events)
        pdu: dict[str, Any] = {
            "type": type,
            "sender": sender,
            "state_key": state_key,
            "content": content,
            "room_id": "!0",
            "depth": number,
            "origin_server_ts": number,
            "prev_events": [f"${number - 1}"] if number else [],
            "auth_events": auth_events if type != "m.room.create" else [],
        }
        if self.rules.references_carry_hashes:
            pdu["auth_events"] = [[event_id, {}] for event_id in pdu["auth_events"]]
            pdu["prev_events"] = [[event_id, {}] for event_id in pdu["prev_events"]]
        event = Event.from_pdu(pdu, self.rules, f"${number}")
        self.events[event.event_id] = event
        self.state[type, state_key] = event.event_id

    def levels(self, users: dict[str, int]) -> None:
        named = {} if self.rules.privileged_creators else {"@admin:x": 100}
        self.add("m.room.power_levels", "", {"users": {**named, **users}})

    def join(self, user: str) -> None:
        self.add("m.room.member", user, {"membership": "join"}, sender=user)


def measure(what: str, room: LargeRoom, states: list[State]) -> tuple[Resolution, int, int]:
    """Loads level by level and resolves: the resolution, the rounds and the number of events loaded."""
    begun = time.perf_counter()
    resolution = resolve(room.rules, states, room.events)
    seconds = time.perf_counter() - begun
    loaded: dict[str, Event] = {}
    rounds = 0
    while missing := missing_auth_events(room.rules, states, loaded):
        loaded.update({event_id: room.events[event_id] for event_id in missing})
        rounds += 1
    print(
        f"\n{what}, version {room.rules.identifier}: {len(room.events)} events, state of {len(states[0])}, "
        f"{len(resolution.full_conflicted_set)} took part: {seconds * 1e3:.0f} ms; "
        f"{len(loaded)} events read in {rounds} rounds"
    )
    assert seconds < 5
    assert resolve(room.rules, states, loaded) == resolution
    return resolution, rounds, len(loaded)


@pytest.mark.parametrize("room_version", ["1", "10", "12"])
def test_a_fork_in_a_large_room_reads_a_handful_of_events(room_version: str) -> None:
    room = LargeRoom(room_version)
    for number in range(5_000):
        room.join(f"@u{number}:x")
    before = dict(room.state)
    room.add("m.room.topic", "", {"topic": "a"})
    one, room.state = dict(room.state), dict(before)
    room.add("m.room.topic", "", {"topic": "b"}, sender="@mod:x")
    room.join("@late:x")
    resolution, rounds, loaded = measure("Two topics and a join", room, [one, room.state])
    if room_version != "1":
        assert room.events[resolution.state["m.room.topic", ""]].content == {"topic": "b"}
    assert resolution.state["m.room.member", "@late:x"]
    assert loaded < 20
    assert rounds < 8


@pytest.mark.parametrize("room_version", ["10", "12"])
def test_a_fork_with_power_levels_in_between_reads_the_state_once(room_version: str) -> None:
    room = LargeRoom(room_version)
    for number in range(5_000):
        room.join(f"@u{number}:x")
    before = dict(room.state)
    room.levels({"@mod:x": 50, "@u1:x": 50})
    room.levels({"@mod:x": 50, "@u1:x": 50, "@u2:x": 50})
    one, room.state = dict(room.state), dict(before)
    room.add("m.room.topic", "", {"topic": "b"}, sender="@mod:x")
    resolution, rounds, _ = measure("Power levels twice", room, [one, room.state])
    assert resolution.state["m.room.power_levels", ""] == one["m.room.power_levels", ""]
    assert rounds < 10


@pytest.mark.parametrize("room_version", ["1", "10", "12"])
def test_five_thousand_conflicting_memberships_resolve_in_about_a_second(room_version: str) -> None:
    room = LargeRoom(room_version)
    users = [f"@u{number}:x" for number in range(5_000)]
    for user in users:
        room.join(user)
    before = dict(room.state)
    for user in users[::2]:
        room.add("m.room.member", user, {"membership": "ban"})
    one, room.state = dict(room.state), dict(before)
    for user in users:
        room.add("m.room.member", user, {"membership": "join", "displayname": "renamed"}, sender=user)
    resolution, _, _ = measure("2,500 bans against 5,000 renamings", room, [one, room.state])
    memberships = [room.events[resolution.state["m.room.member", user]].content["membership"] for user in users]
    assert memberships == ["ban", "join"] * 2_500


@pytest.mark.parametrize("room_version", ["10", "12"])
def test_an_auth_chain_ten_thousand_power_levels_deep_needs_no_stack(room_version: str) -> None:
    room = LargeRoom(room_version)
    before = dict(room.state)
    for number in range(10_000):
        room.levels({"@mod:x": 50, "@u:x": number % 50})
    one, room.state = dict(room.state), dict(before)
    room.add("m.room.topic", "", {"topic": "b"}, sender="@mod:x")
    begun = time.perf_counter()
    resolution = resolve(room.rules, [one, room.state], room.events)
    print(f"\n10,000 power levels one upon the other, version {room_version}: {time.perf_counter() - begun:.2f} s")
    assert resolution.state["m.room.power_levels", ""] == one["m.room.power_levels", ""]
    assert len(resolution.power_events) > 10_000
