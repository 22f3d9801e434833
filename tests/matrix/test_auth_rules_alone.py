"""The authorisation rules that depend on an event and its auth events alone, and the selection of auth events."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, REMOTE, AuthRoom, from_version, until_version

from matrix.auth_rules import AuthError, UnknownAuthEvent, auth_event_keys, check_event_alone
from matrix.room_versions import ROOM_VERSIONS

CREATE = ("m.room.create", "")
LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


# Rule 1: m.room.create


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_create_event_is_allowed(version: str) -> None:
    check_event_alone(AuthRoom(version).create, {})


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_create_event_with_previous_events_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    create = room.event("m.room.create", CREATOR, "", room.create.content, prev_events=["$p:x"])
    assert "previous" in room.refusal_alone(create)


@pytest.mark.parametrize("version", until_version(11))
def test_a_create_event_for_a_room_of_another_server_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    create = room.event("m.room.create", CREATOR, "", room.create.content, room_id="!r:other")
    assert "server" in room.refusal_alone(create)


def test_a_create_event_with_a_room_id_is_rejected_in_version_12() -> None:
    room = AuthRoom("12")
    create = room.event("m.room.create", CREATOR, "", {}, room_id="!c")
    assert "no room ID" in room.refusal_alone(create)


@pytest.mark.parametrize("unrecognised", ["0", "13", "", 1, None, [], {}])
def test_a_create_event_of_an_unrecognised_version_is_rejected(unrecognised: Any) -> None:
    assert "version" in AuthRoom().refusal_alone(AuthRoom(room_version=unrecognised).create)


def test_a_create_event_without_a_version_is_allowed() -> None:
    room = AuthRoom("1")
    check_event_alone(room.event("m.room.create", CREATOR, "", {"creator": CREATOR}), {})


@pytest.mark.parametrize("version", until_version(10))
def test_a_create_event_without_creator_is_rejected_before_version_11(version: str) -> None:
    room = AuthRoom(version)
    assert "creator" in room.refusal_alone(room.event("m.room.create", CREATOR, "", {}))


@pytest.mark.parametrize("version", from_version(11))
def test_a_create_event_needs_no_creator_from_version_11_on(version: str) -> None:
    room = AuthRoom(version)
    check_event_alone(room.event("m.room.create", CREATOR, "", {}), {})


@pytest.mark.parametrize("additional", [None, "x", ALICE, {}, [1], ["alice"], ["@a"], [ALICE, "@b\0:x"], [[ALICE]]])
def test_additional_creators_that_are_no_user_ids_are_rejected_in_version_12(additional: Any) -> None:
    assert "additional_creators" in AuthRoom().refusal_alone(AuthRoom("12", additional_creators=additional).create)
    check_event_alone(AuthRoom("11", additional_creators=additional).create, {})


def test_additional_creators_may_be_any_list_of_users() -> None:
    check_event_alone(AuthRoom("12", additional_creators=[]).create, {})
    check_event_alone(AuthRoom("12", additional_creators=[ALICE, REMOTE, "@historical user:z"]).create, {})


# Rule 2 of version 12: the room id is the create event's


def test_a_room_id_that_names_no_known_event_cannot_be_judged() -> None:
    room = AuthRoom("12")
    event = room.event("m.room.message", CREATOR)
    known = {event_id: known for event_id, known in room.by_id.items() if event_id != "$c"}
    with pytest.raises(UnknownAuthEvent) as unknown:
        check_event_alone(event, known)
    assert unknown.value.event_id == "$c"


def test_a_room_id_that_names_another_event_is_rejected() -> None:
    room = AuthRoom("12")
    member = room.state["m.room.member", CREATOR]
    event = room.event("m.room.message", CREATOR, auth_events=[], room_id="!" + member.event_id[1:])
    assert "create event" in room.refusal_alone(event)


def test_a_room_id_that_names_a_rejected_create_event_is_rejected() -> None:
    room = AuthRoom("12")
    room.create.rejected = True
    assert "accepted create event" in room.refusal_alone(room.event("m.room.message", CREATOR))


# Rule 3: the auth events


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_an_event_with_the_selected_auth_events_is_allowed(version: str) -> None:
    room = AuthRoom(version)
    room.power()
    check_event_alone(room.event("m.room.message", CREATOR), room.by_id)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_two_auth_events_for_the_same_key_are_rejected(version: str) -> None:
    room = AuthRoom(version)
    first = room.power()
    second = room.power()
    event = room.event("m.room.message", CREATOR)
    event.auth_events += (first.event_id,)
    assert "two auth events" in room.refusal_alone(event, first, second)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_the_same_auth_event_twice_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    event = room.event("m.room.message", CREATOR)
    event.auth_events += event.auth_events[-1:]
    assert "two auth events" in room.refusal_alone(event)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_an_auth_event_that_is_not_selected_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    topic = room.set("m.room.topic", {})
    event = room.event("m.room.message", CREATOR)
    event.auth_events += (topic.event_id,)
    assert "not one to select" in room.refusal_alone(event)


def test_an_auth_event_that_is_no_state_is_rejected() -> None:
    room = AuthRoom()
    message = room.event("m.room.member", CREATOR, None, {"membership": "join"})
    event = room.event("m.room.message", CREATOR)
    event.auth_events += (message.event_id,)
    assert "not one to select" in room.refusal_alone(event, message)


def test_the_create_event_among_the_auth_events_is_rejected_in_version_12() -> None:
    room = AuthRoom("12")
    event = room.event("m.room.message", CREATOR)
    event.auth_events += ("$c",)
    assert "not one to select" in room.refusal_alone(event)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_rejected_auth_event_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    room.state["m.room.member", CREATOR].rejected = True
    assert "was rejected" in room.refusal_alone(room.event("m.room.message", CREATOR))


@pytest.mark.parametrize("version", until_version(11))
def test_no_create_event_among_the_auth_events_is_rejected_before_version_12(version: str) -> None:
    room = AuthRoom(version)
    event = room.event("m.room.message", CREATOR, auth_events=[room.state["m.room.member", CREATOR].event_id])
    assert "no create event" in room.refusal_alone(event)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_an_auth_event_of_another_room_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    room.state["m.room.member", CREATOR].room_id = "!elsewhere:x"
    assert "another room" in room.refusal_alone(room.event("m.room.message", CREATOR))


def test_an_unknown_auth_event_is_named() -> None:
    room = AuthRoom("11")
    event = room.event("m.room.message", CREATOR, auth_events=["$c", "$gone"])
    with pytest.raises(UnknownAuthEvent) as unknown:
        check_event_alone(event, room.by_id)
    assert unknown.value.event_id == "$gone"


# Rule 5.2: the authorising server has signed


@pytest.mark.parametrize("version", from_version(8))
def test_an_authorised_join_that_the_authorising_server_has_not_signed_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    join = room.transition(REMOTE, REMOTE, "join", join_authorised_via_users_server=CREATOR)
    assert "not signed" in room.refusal_alone(join)
    join.pdu["signatures"]["x"] = {"ed25519:a": "s"}
    check_event_alone(join, room.by_id)


@pytest.mark.parametrize("authoriser", [None, 1, [], "x", ""])
def test_an_authorising_user_that_is_none_is_rejected(authoriser: Any) -> None:
    room = AuthRoom("8")
    join = room.transition(ALICE, ALICE, "join", join_authorised_via_users_server=authoriser)
    assert "not signed" in room.refusal_alone(join)


def test_only_a_membership_that_names_an_authorising_user_needs_another_signature() -> None:
    room = AuthRoom("8")
    check_event_alone(room.transition(REMOTE, REMOTE, "join"), room.by_id)
    content = {"join_authorised_via_users_server": CREATOR}
    room.member(REMOTE, "join")
    check_event_alone(room.event("m.room.message", REMOTE, None, content), room.by_id)


@pytest.mark.parametrize("version", until_version(7))
def test_nobody_authorises_joins_before_version_8(version: str) -> None:
    room = AuthRoom(version)
    join = room.transition(REMOTE, REMOTE, "join", join_authorised_via_users_server=CREATOR)
    check_event_alone(join, room.by_id)


# Auth events selection


def _keys(type: str, state_key: str | None, content: dict[str, Any], version: str = "12") -> list[tuple[str, str]]:
    return auth_event_keys(type, ALICE, state_key, content, ROOM_VERSIONS[version])


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_create_event_has_no_auth_events(version: str) -> None:
    assert _keys("m.room.create", "", {}, version) == []


def test_a_message_is_authorised_by_power_levels_and_its_sender_s_membership() -> None:
    assert _keys("m.room.message", None, {}) == [LEVELS, ("m.room.member", ALICE)]


def test_before_version_12_the_create_event_is_selected_too() -> None:
    assert _keys("m.room.message", None, {}, "11") == [CREATE, LEVELS, ("m.room.member", ALICE)]


def test_a_membership_is_authorised_by_that_of_its_target_too() -> None:
    expected = [LEVELS, ("m.room.member", ALICE), ("m.room.member", BOB)]
    assert _keys("m.room.member", BOB, {"membership": "ban"}) == expected
    assert _keys("m.room.member", ALICE, {"membership": "leave"}) == expected[:2]


@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_entering_is_authorised_by_the_join_rules(membership: str) -> None:
    assert JOIN_RULES in _keys("m.room.member", ALICE, {"membership": membership})


@pytest.mark.parametrize("membership", ["leave", "ban", "x", None, 1, []])
def test_other_memberships_are_not_authorised_by_the_join_rules(membership: Any) -> None:
    assert JOIN_RULES not in _keys("m.room.member", ALICE, {"membership": membership})


def test_a_third_party_invite_is_authorised_by_the_event_with_its_token() -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}}
    assert ("m.room.third_party_invite", "t") in _keys("m.room.member", BOB, content)
    assert ("m.room.third_party_invite", "t") not in _keys("m.room.member", BOB, {**content, "membership": "join"})


@pytest.mark.parametrize("invite", [None, "x", [], {}, {"signed": 1}, {"signed": {}}, {"signed": {"token": 1}}])
def test_a_malformed_third_party_invite_selects_nothing(invite: Any) -> None:
    keys = _keys("m.room.member", BOB, {"membership": "invite", "third_party_invite": invite})
    assert all(type != "m.room.third_party_invite" for type, _ in keys)


def test_an_authorised_join_is_authorised_by_the_membership_of_who_authorises_it() -> None:
    content = {"membership": "join", "join_authorised_via_users_server": BOB}
    assert ("m.room.member", BOB) in _keys("m.room.member", ALICE, content, "8")
    assert ("m.room.member", BOB) not in _keys("m.room.member", ALICE, content, "7")
    assert ("m.room.member", BOB) not in _keys("m.room.member", ALICE, {**content, "membership": "knock"}, "8")


def test_no_key_is_selected_twice() -> None:
    keys = _keys("m.room.member", ALICE, {"membership": "join", "join_authorised_via_users_server": ALICE})
    assert len(keys) == len(set(keys))


def test_a_rejection_reads_as_its_reason() -> None:
    assert str(AuthError("Because.")) == AuthError("Because.").reason == "Because."
    assert str(UnknownAuthEvent("$gone")) == "The auth event $gone is not known."
