"""The authorisation rules for m.room.power_levels, and how levels are read."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, AuthRoom, from_version, until_version
from hypothesis import given
from hypothesis import strategies as st

from matrix.power_levels import (
    CREATOR_LEVEL,
    LEVEL_DEFAULTS,
    BadPowerLevel,
    PowerLevels,
    creators_of,
    parse_level,
)
from matrix.room_versions import ROOM_VERSIONS

V1, V9, V10 = ROOM_VERSIONS["1"], ROOM_VERSIONS["9"], ROOM_VERSIONS["10"]
NAMED = list(LEVEL_DEFAULTS)


def _room(version: str, **levels: Any) -> AuthRoom:
    """ALICE at 50, BOB at 20, both joined, and whatever levels are asked for besides."""
    room = AuthRoom(version)
    room.member(ALICE, "join")
    room.member(BOB, "join")
    room.power(users={ALICE: 50, BOB: 20, **levels.pop("users", {})}, **levels)
    return room


def _change(room: AuthRoom, sender: str = ALICE, **changes: Any) -> Any:
    """The current levels with some of them changed, or removed where the change is None."""
    content = {**room.state["m.room.power_levels", ""].content, **changes}
    content = {name: value for name, value in content.items() if value is not None}
    return room.event("m.room.power_levels", sender, "", content)


def _entry(room: AuthRoom, mapping: str, key: str, value: int | None, sender: str = ALICE) -> Any:
    """A change of one entry of `users`, `events` or `notifications`, or its removal."""
    entries = {**room.state["m.room.power_levels", ""].content.get(mapping, {}), key: value}
    return _change(room, sender, **{mapping: {name: level for name, level in entries.items() if level is not None}})


# 10.1 to 10.3: the values


@pytest.mark.parametrize("version", from_version(10))
@pytest.mark.parametrize("value", ["50", 50.0, None, [], {}, True])
@pytest.mark.parametrize("name", NAMED)
def test_a_level_that_is_no_integer_is_rejected_from_version_10_on(version: str, name: str, value: Any) -> None:
    room = AuthRoom(version)
    assert "malformed" in room.refusal(room.event("m.room.power_levels", CREATOR, "", {name: value}))


@pytest.mark.parametrize("version", from_version(10))
@pytest.mark.parametrize("mapping", ["events", "notifications", "users"])
@pytest.mark.parametrize("value", [None, [], "x", 1, {"@a:x": "50"}, {"@a:x": None}, {"@a:x": 1.5}, {"@a:x": False}])
def test_a_mapping_that_holds_no_integers_is_rejected_from_version_10_on(
    version: str, mapping: str, value: Any
) -> None:
    room = AuthRoom(version)
    assert "malformed" in room.refusal(room.event("m.room.power_levels", CREATOR, "", {mapping: value}))


@pytest.mark.parametrize("version", until_version(9))
def test_strings_that_stand_for_integers_are_levels_before_version_10(version: str) -> None:
    room = AuthRoom(version)
    content = {"users": {CREATOR: "100", ALICE: " +0050 "}, "ban": "-1", "events": {"x": "50"}}
    levels = room.event("m.room.power_levels", CREATOR, "", content)
    assert room.allows(levels)
    room.state["m.room.power_levels", ""] = levels
    room.member(ALICE, "join")
    assert room.allows(room.event("x", ALICE))
    assert not room.allows(_change(room, ALICE, events={"x": "51"}))


@pytest.mark.parametrize("version", until_version(9))
@pytest.mark.parametrize("value", ["", "x", "1.5", "1_0", "0x10", [], {}, None, True])
def test_a_user_s_level_that_stands_for_no_integer_is_rejected_in_every_version(version: str, value: Any) -> None:
    room = AuthRoom(version)
    assert "malformed" in room.refusal(room.event("m.room.power_levels", CREATOR, "", {"users": {ALICE: value}}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("user", ["", "alice", "alice:x", "@alice", "@alice:", "@a\0:x"])
def test_levels_of_what_is_no_user_are_rejected(version: str, user: str) -> None:
    room = AuthRoom(version)
    assert "not a user ID" in room.refusal(room.event("m.room.power_levels", CREATOR, "", {"users": {user: 1}}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("users", [None, [], "x", 1])
def test_users_that_are_no_object_are_rejected(version: str, users: Any) -> None:
    room = AuthRoom(version)
    assert "malformed" in room.refusal(room.event("m.room.power_levels", CREATOR, "", {"users": users}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_the_first_levels_are_allowed_whatever_they_are(version: str) -> None:
    room = AuthRoom(version)
    content = {"users": {ALICE: 2**53 - 1}, "ban": 2**53 - 1, "users_default": 1000}
    assert room.allows(room.event("m.room.power_levels", CREATOR, "", content))
    assert room.allows(room.event("m.room.power_levels", CREATOR, "", {}))


# 10.4 of version 12


@pytest.mark.parametrize("creator", [CREATOR, BOB])
def test_levels_that_name_a_creator_are_rejected_in_version_12(creator: str) -> None:
    room = AuthRoom("12", additional_creators=[BOB])
    for level in (0, 100, 2**53 - 1):
        levels = room.event("m.room.power_levels", CREATOR, "", {"users": {creator: level}})
        assert "creators" in room.refusal(levels)
    assert room.allows(room.event("m.room.power_levels", CREATOR, "", {"users": {ALICE: 100}}))


@pytest.mark.parametrize("version", until_version(11))
def test_levels_name_the_creator_before_version_12(version: str) -> None:
    room = AuthRoom(version)
    assert room.allows(room.event("m.room.power_levels", CREATOR, "", {"users": {CREATOR: 100}}))


# 10.6: the named levels


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("users_default", "state_default")])
def test_a_level_is_changed_up_to_the_sender_s_own(version: str, name: str) -> None:
    room = _room(version, **{name: 40})
    assert room.allows(_change(room, **{name: 50}))
    assert room.allows(_change(room, **{name: -10}))
    assert room.allows(_change(room, **{name: None}))
    assert name in room.refusal(_change(room, **{name: 51}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("users_default", "state_default")])
def test_a_level_above_the_sender_s_own_is_neither_changed_nor_removed(version: str, name: str) -> None:
    room = _room(version, **{name: 50})
    assert room.allows(_change(room, **{name: 0}))
    room = _room(version, **{name: 51})
    assert room.allows(_change(room))
    assert name in room.refusal(_change(room, **{name: 0}))
    assert name in room.refusal(_change(room, **{name: None}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("name", NAMED)
def test_a_level_is_added_up_to_the_sender_s_own(version: str, name: str) -> None:
    room = _room(version)
    assert room.allows(_change(room, **{name: 50}))
    assert name in room.refusal(_change(room, **{name: 51}))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_levels_need_the_level_of_their_own_type(version: str) -> None:
    room = _room(version, events={"m.room.power_levels": 50})
    assert "sending m.room.power_levels" in room.refusal(_change(room, BOB))
    room = _room(version, events={"m.room.power_levels": 20})
    assert room.allows(_change(room, BOB))


# 10.7 and 10.8: events and notifications


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_the_levels_of_event_types_are_changed_up_to_the_sender_s_own(version: str) -> None:
    room = _room(version, events={"low": 10, "high": 51})
    assert room.allows(_entry(room, "events", "low", 50))
    assert room.allows(_entry(room, "events", "low", None))
    assert room.allows(_entry(room, "events", "new", 50))
    assert "low" in room.refusal(_entry(room, "events", "low", 51))
    assert "new" in room.refusal(_entry(room, "events", "new", 51))
    assert "high" in room.refusal(_entry(room, "events", "high", 10))
    assert "high" in room.refusal(_entry(room, "events", "high", None))
    assert "high" in room.refusal(_change(room, events=None))


@pytest.mark.parametrize("version", from_version(6))
def test_the_levels_of_notifications_are_changed_likewise_from_version_6_on(version: str) -> None:
    room = _room(version, notifications={"room": 10, "high": 51})
    assert room.allows(_entry(room, "notifications", "room", 50))
    assert "room" in room.refusal(_entry(room, "notifications", "room", 51))
    assert "new" in room.refusal(_entry(room, "notifications", "new", 51))
    assert "high" in room.refusal(_entry(room, "notifications", "high", 10))
    assert "high" in room.refusal(_change(room, notifications=None))


@pytest.mark.parametrize("version", until_version(5))
def test_the_levels_of_notifications_are_anybody_s_before_version_6(version: str) -> None:
    room = _room(version, notifications={"room": 51})
    assert room.allows(_entry(room, "notifications", "room", 100))
    assert room.allows(_change(room, notifications=None))


# 10.9 and 10.10: users


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_users_are_raised_up_to_the_sender_s_level(version: str) -> None:
    room = _room(version)
    assert room.allows(_entry(room, "users", BOB, 50))
    assert "51" in room.refusal(_entry(room, "users", BOB, 51))
    assert room.allows(_entry(room, "users", "@new:x", 50))
    assert "51" in room.refusal(_entry(room, "users", "@new:x", 51))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_only_users_below_the_sender_are_changed_or_removed(version: str) -> None:
    room = _room(version, users={"@equal:x": 50, "@above:x": 51})
    assert room.allows(_entry(room, "users", BOB, 0))
    assert room.allows(_entry(room, "users", BOB, None))
    for user in ("@equal:x", "@above:x"):
        assert user in room.refusal(_entry(room, "users", user, 0))
        assert user in room.refusal(_entry(room, "users", user, None))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_the_sender_steps_down_but_not_up(version: str) -> None:
    room = _room(version)
    assert room.allows(_entry(room, "users", ALICE, 10))
    assert room.allows(_entry(room, "users", ALICE, None))
    assert "51" in room.refusal(_entry(room, "users", ALICE, 51))


def test_a_level_written_differently_is_not_a_change() -> None:
    room = _room("9", ban="51", users={"@above:x": 51})
    assert room.allows(_change(room, ban=51))
    assert room.allows(_entry(room, "users", "@above:x", "51"))  # type: ignore[arg-type]


def test_a_creator_of_version_12_changes_every_level() -> None:
    room = _room("12", ban=2**53 - 1, users={"@above:x": 2**53 - 1})
    assert room.allows(_change(room, CREATOR, ban=0, users={ALICE: 2**53 - 1}))


# Reading levels


@given(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.sampled_from(["", " ", "\t\n", "\u00a0\u3000"]),
    st.sampled_from(["", "0", "000", "0" * 5000]),
)
def test_a_string_stands_for_its_integer_with_zeroes_and_spaces(level: int, space: str, zeroes: str) -> None:
    sign = "-" if level < 0 else "+" if zeroes else ""
    assert parse_level(f"{space}{sign}{zeroes}{abs(level)}{space}", V9) == level


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_stands_for_what_is_before_its_point(level: float) -> None:
    assert parse_level(level, V1) == int(level)


@pytest.mark.parametrize(("level", "expected"), [(50.57, 50), (5.114698e4, 51146), (-0.9, 0)])
def test_the_floats_of_the_specification(level: float, expected: int) -> None:
    assert parse_level(level, V1) == expected


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "9" * 5000, "٣", "--1", "1 0", "+", "", None, True])
def test_what_stands_for_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(BadPowerLevel):
        parse_level(value, V1)


@pytest.mark.parametrize("value", ["1", 1.0, None, True])
def test_only_integers_are_integers_from_version_10_on(value: Any) -> None:
    with pytest.raises(BadPowerLevel):
        parse_level(value, V10)
    assert parse_level(1, V10) == 1


def test_levels_without_an_event_are_the_defaults() -> None:
    levels = PowerLevels(AuthRoom("11").create, None)
    zero = {"users_default", "events_default", "invite"}
    assert {name: levels.named(name) for name in NAMED} == {name: 0 if name in zero else 50 for name in NAMED}
    assert (levels.of_user(CREATOR), levels.of_user(ALICE)) == (100, 0)
    assert (levels.to_send("x", is_state=True), levels.to_send("x", is_state=False)) == (50, 0)
    assert levels.to_notify("room") == 50


def test_levels_with_an_event_are_what_it_says() -> None:
    room = _room("12", users_default=5, notifications={"room": 7})
    levels = PowerLevels(room.create, room.state["m.room.power_levels", ""])
    assert (levels.of_user(ALICE), levels.of_user("@else:x"), levels.of_user(CREATOR)) == (50, 5, CREATOR_LEVEL)
    assert (levels.to_notify("room"), levels.to_notify("other")) == (7, 50)


def test_creators_are_who_the_version_says() -> None:
    assert creators_of(AuthRoom("12", additional_creators=[ALICE]).create) == (CREATOR, ALICE)
    assert creators_of(AuthRoom("12").create) == (CREATOR,)
    assert creators_of(AuthRoom("11", creator=ALICE).create) == (CREATOR,)
    assert creators_of(AuthRoom("10", creator=ALICE).create) == (ALICE,)
    assert creators_of(AuthRoom("10", creator=1).create) == ()
