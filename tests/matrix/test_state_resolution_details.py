"""Single sentences of the algorithms that no scenario decides, and input that no honest server makes."""

from __future__ import annotations

from typing import Any

import pytest
from resolution_scenarios import Scenario

from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from matrix.state_resolution import MissingEvents, missing_auth_events, resolve
from matrix.state_resolution.auth_chains import EventReader, not_below

ADMIN = "@admin:x"
TOPIC = ("m.room.topic", "")
LEVELS = ("m.room.power_levels", "")

State = dict[tuple[str, str], str]


class SmallRoom:
    """An admin in a public room. Event ids are names, and everything about an event can be chosen."""

    def __init__(self, room_version: str) -> None:
        self.rules = ROOM_VERSIONS[room_version]
        self.events: dict[str, Event] = {}
        self.state: State = {}
        self.begin("create", "m.room.create", "", {"creator": ADMIN})
        self.begin("admin", "m.room.member", ADMIN, {"membership": "join"})
        users = {} if self.rules.privileged_creators else {ADMIN: 100}
        self.begin("levels", "m.room.power_levels", "", {"users": users})
        self.begin("rules", "m.room.join_rules", "", {"join_rule": "public"})

    def begin(self, name: str, type: str, state_key: str, content: dict[str, Any]) -> None:
        self.state[type, state_key] = self.add(name, type, state_key, content, list(self.state.values())[:3])

    def add(
        self,
        name: str,
        type: str,
        state_key: str,
        content: dict[str, Any],
        auth_events: list[str] | None = None,
        *,
        sender: str = ADMIN,
        at: int = 10,
        depth: int = 10,
    ) -> str:
        if auth_events is None:
            auth_events = ["$create", "$admin", "$levels"]
        if not self.rules.create_event_in_auth_events and auth_events:
            auth_events = [event_id for event_id in auth_events if event_id != "$create"]
        pdu = {
            "type": type,
            "sender": sender,
            "state_key": state_key,
            "content": content,
            "room_id": "!create",
            "depth": depth,
            "origin_server_ts": at,
            "prev_events": [],
            "auth_events": [[each, {}] for each in auth_events] if self.rules.references_carry_hashes else auth_events,
        }
        event = Event.from_pdu(pdu, self.rules, f"${name}")
        self.events[event.event_id] = event
        return event.event_id


@pytest.mark.parametrize("room_version", ["2", "11", "12"])
def test_of_equal_power_and_time_the_event_with_the_greater_id_comes_last_and_stands(room_version: str) -> None:
    room = SmallRoom(room_version)
    one, other = room.add("a", *TOPIC, {"topic": "a"}), room.add("b", *TOPIC, {"topic": "b"})
    levels = {"users": {} if room.rules.privileged_creators else {ADMIN: 100}}
    first, second = room.add("c", *LEVELS, levels), room.add("d", *LEVELS, {**levels, "ban": 60})
    states = [{**room.state, TOPIC: one, LEVELS: second}, {**room.state, TOPIC: other, LEVELS: first}]
    resolution = resolve(room.rules, states, room.events)
    assert resolution.state[TOPIC] == other
    assert resolution.state[LEVELS] == second
    assert resolution.power_events == (first, second)
    assert resolution.remaining_events == (one, other)


def test_in_version_1_the_deepest_of_other_events_stands_and_of_equal_depth_that_with_the_lowest_hash() -> None:
    room = SmallRoom("1")
    # sha1 of "$c" begins with 2b, of "$b" with 77, of "$a" with c1.
    names = [room.add(name, *TOPIC, {"topic": name}, depth=20) for name in "abc"]
    deepest = room.add("deepest", *TOPIC, {"topic": "deepest"}, depth=21)
    states = [{**room.state, TOPIC: name} for name in names]
    assert resolve(room.rules, states, room.events).state[TOPIC] == "$c"
    assert resolve(room.rules, [*states, {**room.state, TOPIC: deepest}], room.events).state[TOPIC] == deepest


def test_in_version_1_the_shallowest_of_other_events_stands_if_none_is_allowed() -> None:
    room = SmallRoom("1")
    low = room.add("low", *TOPIC, {"topic": "low"}, sender="@stranger:x", depth=5)
    high = room.add("high", *TOPIC, {"topic": "high"}, sender="@stranger:x", depth=6)
    resolution = resolve(room.rules, [{**room.state, TOPIC: low}, {**room.state, TOPIC: high}], room.events)
    assert resolution.state[TOPIC] == low
    assert resolution.refused.keys() == {low, high}


def test_a_rejected_auth_event_does_not_stand_in_for_a_key_that_the_state_lacks() -> None:
    scenario = Scenario("msc4297_problem_a_join_rules_of_a_user_who_has_left", "12")
    scenario.events[scenario.ids["alice"]].rejected = True
    resolution = resolve(scenario.room_version, scenario.states, scenario.events)
    assert ("m.room.join_rules", "") not in resolution.state
    assert resolution.refused[scenario.ids["new-rules"]]


def test_power_levels_with_a_state_key_have_no_power() -> None:
    room = SmallRoom("11")
    one = room.add("a", "m.room.power_levels", "other", {"users": {"@stranger:x": 100}})
    resolution = resolve(room.rules, [room.state, {**room.state, ("m.room.power_levels", "other"): one}], room.events)
    assert resolution.power_events == ()
    assert resolution.remaining_events == (one,)


@pytest.mark.parametrize(
    ("sender", "membership", "power"), [("@a:x", "leave", False), (ADMIN, "leave", True), (ADMIN, "ban", True)]
)
def test_only_who_makes_others_leave_takes_power_away(sender: str, membership: str, power: bool) -> None:
    room = SmallRoom("11")
    theirs = ("m.room.member", "@a:x")
    joined = room.add("member", *theirs, {"membership": "join"}, ["$create", "$levels", "$rules"], sender="@a:x")
    room.state[theirs] = joined
    auth_events = ["$create", "$levels", joined] if sender == "@a:x" else ["$create", "$admin", "$levels", joined]
    gone = room.add("gone", *theirs, {"membership": membership}, auth_events, sender=sender)
    resolution = resolve(room.rules, [room.state, {**room.state, theirs: gone}], room.events)
    assert (gone in resolution.power_events) is power
    assert (gone in resolution.remaining_events) is not power


def test_what_is_in_an_auth_chain_is_found_however_far_down() -> None:
    room = SmallRoom("11")
    first = room.add("first", *TOPIC, {}, [])
    second = room.add("second", *TOPIC, {}, [first])
    third = room.add("third", *TOPIC, {}, [second, "$gone"])
    other = room.add("other", *TOPIC, {}, [first])
    reader = EventReader(room.events)
    assert not_below({first, second, third, other}, [third], reader) == {other}
    assert not_below({other, third}, [second], reader) == {other, third}


def test_a_key_that_one_state_lacks_is_in_conflict_from_version_2_on_and_not_in_version_1() -> None:
    for room_version, conflicted in (("1", set()), ("2", {TOPIC}), ("12", {TOPIC})):
        room = SmallRoom(room_version)
        topic = room.add("a", *TOPIC, {"topic": "a"}, sender="@stranger:x")
        resolution = resolve(room.rules, [room.state, {**room.state, TOPIC: topic}], room.events)
        assert resolution.conflicted.keys() == conflicted
        assert (resolution.state.get(TOPIC) == topic) is (room_version == "1")


def test_forged_auth_events_in_a_circle_end_in_a_resolution() -> None:
    room = SmallRoom("2")
    levels = {"users": {ADMIN: 100}}
    one = room.add("a", *LEVELS, levels, ["$create", "$admin", "$b"])
    other = room.add("b", *LEVELS, levels, ["$create", "$admin", "$a"])
    topic = room.add("c", *TOPIC, {"topic": "c"}, ["$create", "$admin", "$a"])
    states = [{**room.state, LEVELS: one}, {**room.state, LEVELS: other, TOPIC: topic}]
    resolution = resolve(room.rules, states, room.events)
    assert resolution.state[LEVELS] in (one, other)
    assert set(resolution.power_events) | set(resolution.remaining_events) == {one, other, topic}


@pytest.mark.parametrize("room_version", ["1", "2", "12"])
def test_an_event_that_nobody_has_is_named(room_version: str) -> None:
    room = SmallRoom(room_version)
    topic = room.add("a", *TOPIC, {"topic": "a"})
    states = [{**room.state, TOPIC: topic}, {**room.state, TOPIC: "$gone"}]
    assert "$gone" in missing_auth_events(room.rules, states, room.events)
    with pytest.raises(MissingEvents, match=r"\$gone") as error:
        resolve(room.rules, states, room.events)
    assert error.value.event_ids == {"$gone"}


def test_without_power_levels_the_creator_goes_first() -> None:
    room = SmallRoom("11")
    del room.state[LEVELS]
    joined = room.add("member", "m.room.member", "@a:x", {"membership": "join"}, ["$create", "$rules"], sender="@a:x")
    room.state["m.room.member", "@a:x"] = joined
    ban = room.add("z", "m.room.member", "@a:x", {"membership": "ban"}, ["$create", "$admin", joined], at=99)
    rules = ("m.room.join_rules", "")
    theirs = room.add("y", *rules, {"join_rule": "invite"}, ["$create", joined], sender="@a:x", at=1)
    states = [{**room.state, ("m.room.member", "@a:x"): ban}, {**room.state, rules: theirs}]
    resolution = resolve(room.rules, states, room.events)
    assert resolution.power_events[-2:] == (ban, theirs)
    assert resolution.state["m.room.member", "@a:x"] == ban
    assert theirs in resolution.refused
