"""The authorisation rules that depend on state, but for memberships and power-level changes."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, REMOTE, AuthRoom, from_version, until_version

from matrix.auth_rules import check_against_state


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_create_event_needs_no_state(version: str) -> None:
    check_against_state(AuthRoom(version).create, {})


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_without_a_create_event_in_the_state_everything_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    del room.state["m.room.create", ""]
    assert "no create event" in room.refusal(room.event("m.room.message", CREATOR))


# Rule 4: m.federate


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_an_unfederated_room_rejects_senders_of_other_servers(version: str) -> None:
    room = AuthRoom(version, **{"m.federate": False})
    room.join_rule("public")
    assert "not federated" in room.refusal(room.transition(REMOTE, REMOTE, "join"))
    assert room.allows(room.transition(ALICE, ALICE, "join"))


@pytest.mark.parametrize("federate", [True, None, "false", 0, []])
def test_only_false_keeps_a_room_to_its_server(federate: Any) -> None:
    room = AuthRoom(**{"m.federate": federate})
    room.join_rule("public")
    assert room.allows(room.transition(REMOTE, REMOTE, "join"))


# Rule 4 of versions 1 to 5: m.room.aliases


@pytest.mark.parametrize("version", until_version(5))
def test_aliases_are_allowed_under_the_sender_s_server_name_even_to_those_who_left(version: str) -> None:
    room = AuthRoom(version)
    assert room.allows(room.event("m.room.aliases", ALICE, "x", {"aliases": []}))


@pytest.mark.parametrize("version", until_version(5))
def test_aliases_of_another_server_or_without_one_are_rejected(version: str) -> None:
    room = AuthRoom(version)
    assert "server name" in room.refusal(room.event("m.room.aliases", CREATOR, "y", {}))
    assert "server name" in room.refusal(room.event("m.room.aliases", CREATOR, None, {}))


@pytest.mark.parametrize("version", from_version(6))
def test_aliases_are_state_like_any_other_from_version_6_on(version: str) -> None:
    room = AuthRoom(version)
    assert "not joined" in room.refusal(room.event("m.room.aliases", ALICE, "x", {}))
    assert room.allows(room.event("m.room.aliases", CREATOR, "y", {}))


# Rule 6: the sender is joined


@pytest.mark.parametrize("version", ALL_VERSIONS)
@pytest.mark.parametrize("membership", [None, "invite", "leave", "ban", "knock", 1])
def test_who_is_not_joined_sends_nothing(version: str, membership: Any) -> None:
    room = AuthRoom(version)
    if membership is not None:
        room.member(ALICE, membership)
    assert "not joined" in room.refusal(room.event("m.room.message", ALICE))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_who_is_joined_sends_messages(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    assert room.allows(room.event("m.room.message", ALICE, content={"body": "x"}))
    room.power(users_default=0, events_default=0)
    assert room.allows(room.event("m.room.message", ALICE, content={"body": "x"}))


# Rule 7: m.room.third_party_invite


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_third_party_invite_needs_the_invite_level_and_no_other(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    invite = room.event("m.room.third_party_invite", ALICE, "token", {})
    room.power(invite=0, state_default=100)
    assert room.allows(invite)
    room.power(invite=1, users_default=0)
    assert "inviting" in room.refusal(invite)


# Rule 8: the required power level


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_an_event_needs_the_level_of_its_type(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    room.power(events={"m.room.name": 20, "x.message": 30}, users={ALICE: 20}, events_default=10, state_default=40)
    assert room.allows(room.event("m.room.name", ALICE, ""))
    assert room.allows(room.event("m.room.message", ALICE))
    assert "x.message" in room.refusal(room.event("x.message", ALICE))
    assert "m.room.topic" in room.refusal(room.event("m.room.topic", ALICE, ""))


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_state_needs_50_and_messages_0_where_nothing_says_otherwise(version: str) -> None:
    room = AuthRoom(version)
    for user, level in ((ALICE, 49), (BOB, 50)):
        room.member(user, "join")
        room.power(users={ALICE: 49, BOB: 50})
        assert room.allows(room.event("m.room.message", user))
        assert room.allows(room.event("m.room.topic", user, "")) == (level >= 50)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_without_power_levels_only_the_creator_changes_state(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    assert room.allows(room.event("m.room.topic", CREATOR, ""))
    assert "m.room.topic" in room.refusal(room.event("m.room.topic", ALICE, ""))


@pytest.mark.parametrize("version", until_version(11))
def test_before_version_12_a_creator_has_the_level_that_power_levels_give(version: str) -> None:
    room = AuthRoom(version)
    room.power(users={CREATOR: 0})
    assert "m.room.topic" in room.refusal(room.event("m.room.topic", CREATOR, ""))


def test_in_version_12_creators_stand_above_every_level() -> None:
    room = AuthRoom("12", additional_creators=[BOB])
    for user in (ALICE, BOB):
        room.member(user, "join")
    room.power(users={ALICE: 2**53 - 1}, events={"x": 2**53 - 1}, users_default=-1)
    for user in (ALICE, BOB, CREATOR):
        assert room.allows(room.event("x", user))
    assert room.allows(room.transition(BOB, ALICE, "ban"))
    assert not room.allows(room.transition(ALICE, BOB, "ban"))
    assert not room.allows(room.transition(BOB, CREATOR, "ban"))


def test_additional_creators_mean_nothing_before_version_12() -> None:
    room = AuthRoom("11", additional_creators=[ALICE])
    room.member(ALICE, "join")
    assert not room.allows(room.event("m.room.topic", ALICE, ""))


@pytest.mark.parametrize("version", until_version(10))
def test_before_version_11_the_creator_is_who_the_content_names(version: str) -> None:
    room = AuthRoom(version, creator=ALICE)
    room.member(ALICE, "join")
    assert room.allows(room.event("m.room.topic", ALICE, ""))
    assert not room.allows(room.event("m.room.topic", CREATOR, ""))


@pytest.mark.parametrize("version", from_version(11))
def test_from_version_11_on_the_creator_is_the_sender(version: str) -> None:
    room = AuthRoom(version, creator=ALICE)
    room.member(ALICE, "join")
    assert not room.allows(room.event("m.room.topic", ALICE, ""))
    assert room.allows(room.event("m.room.topic", CREATOR, ""))


@pytest.mark.parametrize("levels", [{"events": []}, {"users": 1}, {"events_default": "x"}, {"users_default": {}}])
def test_malformed_levels_in_the_state_reject_and_never_fail(levels: dict[str, Any]) -> None:
    room = AuthRoom("9")
    room.member(ALICE, "join")
    room.set("m.room.power_levels", levels)
    assert "malformed" in room.refusal(room.event("m.room.message", ALICE))


# Rule 9: state keys that are user ids


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_state_under_another_user_s_id_is_rejected(version: str) -> None:
    room = AuthRoom(version)
    room.power()
    assert room.allows(room.event("x.state", CREATOR, CREATOR))
    assert "another user" in room.refusal(room.event("x.state", CREATOR, ALICE))
    assert "another user" in room.refusal(room.event("x.state", CREATOR, "@"))


# Rule 11 of versions 1 and 2: m.room.redaction


@pytest.mark.parametrize("version", until_version(2))
def test_a_redaction_of_another_server_s_event_needs_the_redact_level(version: str) -> None:
    room = AuthRoom(version)
    for user in (ALICE, BOB):
        room.member(user, "join")
    room.power(users={ALICE: 49, BOB: 50})
    assert "redacting" in room.refusal(room.event("m.room.redaction", ALICE, redacts="$other:y"))
    assert "redacting" in room.refusal(room.event("m.room.redaction", ALICE))
    assert room.allows(room.event("m.room.redaction", BOB, redacts="$other:y"))


@pytest.mark.parametrize("version", until_version(2))
def test_a_redaction_of_the_own_server_s_event_is_allowed(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    room.power()
    assert room.allows(room.event("m.room.redaction", ALICE, redacts="$other:x"))


@pytest.mark.parametrize("version", from_version(3))
def test_redactions_are_events_like_any_other_from_version_3_on(version: str) -> None:
    room = AuthRoom(version)
    room.member(ALICE, "join")
    room.power(redact=100)
    redaction = room.event("m.room.redaction", ALICE, content={"redacts": "$e:y"}, redacts="$e:y")
    assert room.allows(redaction)
    room.power(events={"m.room.redaction": 1})
    assert "m.room.redaction" in room.refusal(redaction)
