"""Whether a redaction takes effect."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, BOB, CREATOR, REMOTE, AuthRoom, from_version

from matrix.events import Event
from matrix.redaction_rights import redaction_applies


def _redaction(room: AuthRoom, sender: str, target: Event, **pdu: Any) -> Event:
    return room.event("m.room.redaction", sender, None, {"redacts": target.event_id}, redacts=target.event_id, **pdu)


@pytest.mark.parametrize("version", from_version(3))
def test_a_redaction_needs_the_redact_level_or_the_target_s_server(version: str) -> None:
    room = AuthRoom(version)
    room.power(users={ALICE: 49, BOB: 50})
    remote = room.event("m.room.message", REMOTE)
    local = room.event("m.room.message", CREATOR)
    assert not redaction_applies(_redaction(room, ALICE, remote), remote, room.state)
    assert redaction_applies(_redaction(room, ALICE, local), local, room.state)
    assert redaction_applies(_redaction(room, BOB, remote), remote, room.state)
    assert redaction_applies(_redaction(room, CREATOR, remote), remote, room.state)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_redaction_of_versions_1_and_2_applies_if_it_was_let_in(version: str) -> None:
    room = AuthRoom(version)
    remote = room.event("m.room.message", REMOTE)
    assert redaction_applies(_redaction(room, ALICE, remote), remote, room.state)


def test_a_redaction_applies_to_the_event_that_it_names_in_its_own_room() -> None:
    room, target = AuthRoom(), AuthRoom().event("m.room.message", CREATOR)
    assert not redaction_applies(room.event("m.room.redaction", CREATOR, None, {"redacts": "$x"}), target, room.state)
    assert not redaction_applies(room.event("m.room.message", CREATOR, None, {"redacts": "$x"}), target, room.state)
    for version in ("9", "12"):
        old = AuthRoom(version)
        named = old.event("m.room.message", CREATOR)
        content = {"redacts": named.event_id}
        message = old.event("m.room.message", CREATOR, None, content, redacts=named.event_id)
        assert not redaction_applies(message, named, old.state)
    elsewhere = _redaction(room, CREATOR, target, room_id="!elsewhere")
    assert not redaction_applies(elsewhere, target, room.state)


def test_without_a_readable_level_only_the_own_server_s_events_are_redacted() -> None:
    room = AuthRoom("9")
    remote = room.event("m.room.message", REMOTE)
    redaction = _redaction(room, CREATOR, remote)
    assert not redaction_applies(redaction, remote, {})
    room.set("m.room.power_levels", {"redact": "x"})
    assert not redaction_applies(redaction, remote, room.state)
