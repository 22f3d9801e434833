"""Redaction: what each version keeps, and the laws that hash and signature rest on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import canonical_objects, contents, event_types

from matrix.redaction import redact, redact_content
from matrix.room_versions import ROOM_VERSIONS, RoomVersion

VERSIONS = st.sampled_from(list(ROOM_VERSIONS.values()))
FIRST_TO_LAST = list(ROOM_VERSIONS.values())

EVENT: dict[str, Any] = {
    "auth_events": [],
    "content": {"body": "x"},
    "depth": 1,
    "event_id": "$e",
    "hashes": {},
    "membership": "join",
    "origin": "x",
    "origin_server_ts": 1,
    "prev_events": [],
    "prev_state": [],
    "redacts": "$r",
    "room_id": "!r:x",
    "sender": "@a:x",
    "signatures": {},
    "state_key": "",
    "type": "m.room.message",
    "unsigned": {"age": 1},
    "x.other": 1,
}


def versions(first: int, last: int = 12) -> list[RoomVersion]:
    return FIRST_TO_LAST[first - 1 : last]


@pytest.mark.parametrize("version", FIRST_TO_LAST, ids=lambda v: v.identifier)
def test_the_essential_keys_are_kept_and_all_others_dropped(version: RoomVersion) -> None:
    gone = {"redacts", "unsigned", "x.other"}
    if version in versions(11):
        gone |= {"origin", "membership", "prev_state"}
    assert redact(EVENT, version) == {**{k: v for k, v in EVENT.items() if k not in gone}, "content": {}}


KEPT: list[tuple[str, list[RoomVersion], dict[str, Any], dict[str, Any]]] = [
    ("m.room.member", versions(1, 8), {"membership": 1, "join_authorised_via_users_server": 2}, {"membership": 1}),
    (
        "m.room.member",
        versions(9),
        {"membership": 1, "join_authorised_via_users_server": 2, "displayname": 3},
        {"membership": 1, "join_authorised_via_users_server": 2},
    ),
    ("m.room.member", versions(1, 10), {"third_party_invite": {"signed": 1}}, {}),
    (
        "m.room.member",
        versions(11),
        {"third_party_invite": {"signed": {"a": 1}, "display_name": "x"}},
        {"third_party_invite": {"signed": {"a": 1}}},
    ),
    ("m.room.member", versions(11), {"third_party_invite": {"display_name": "x"}}, {}),
    ("m.room.member", versions(11), {"third_party_invite": "x"}, {}),
    ("m.room.join_rules", versions(11), {"third_party_invite": {"signed": 1}}, {}),
    ("m.room.create", versions(1, 10), {"creator": 1, "m.federate": False, "room_version": "1"}, {"creator": 1}),
    (
        "m.room.create",
        versions(11),
        {"m.federate": False, "x": 1, "additional_creators": []},
        {"m.federate": False, "x": 1, "additional_creators": []},
    ),
    ("m.room.join_rules", versions(1, 7), {"join_rule": 1, "allow": 2}, {"join_rule": 1}),
    ("m.room.join_rules", versions(8), {"join_rule": 1, "allow": 2, "x": 3}, {"join_rule": 1, "allow": 2}),
    ("m.room.power_levels", versions(1, 10), {"invite": 1, "ban": 2, "notifications": {}}, {"ban": 2}),
    ("m.room.power_levels", versions(11), {"invite": 1, "ban": 2, "notifications": {}}, {"invite": 1, "ban": 2}),
    ("m.room.aliases", versions(1, 5), {"aliases": 1, "x": 2}, {"aliases": 1}),
    ("m.room.aliases", versions(6), {"aliases": 1}, {}),
    ("m.room.history_visibility", versions(1), {"history_visibility": 1, "x": 2}, {"history_visibility": 1}),
    ("m.room.redaction", versions(1, 10), {"redacts": 1, "reason": 2}, {}),
    ("m.room.redaction", versions(11), {"redacts": 1, "reason": 2}, {"redacts": 1}),
    ("m.room.message", versions(1), {"membership": 1, "body": 2}, {}),
]


@pytest.mark.parametrize(("event_type", "in_versions", "content", "kept"), KEPT)
def test_a_content_keeps_what_the_version_says(
    event_type: str, in_versions: list[RoomVersion], content: dict[str, Any], kept: dict[str, Any]
) -> None:
    for version in in_versions:
        assert redact_content(event_type, content, version) == kept
        assert redact({**EVENT, "type": event_type, "content": content}, version)["content"] == kept


def test_power_levels_keep_every_level_that_authorisation_reads() -> None:
    kept = ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]
    for version in FIRST_TO_LAST:
        assert set(redact_content("m.room.power_levels", dict.fromkeys(kept, 1), version)) == set(kept)


@given(VERSIONS, event_types, contents, canonical_objects)
def test_redacting_twice_is_redacting_once(
    version: RoomVersion, event_type: str, content: dict[str, Any], others: dict[str, Any]
) -> None:
    pdu = {**others, **EVENT, "type": event_type, "content": content}
    once = redact(pdu, version)
    assert redact(once, version) == once


@given(VERSIONS, event_types, contents)
def test_redacting_leaves_the_original_as_it_was(
    version: RoomVersion, event_type: str, content: dict[str, Any]
) -> None:
    pdu = {**EVENT, "type": event_type, "content": content}
    before = repr(pdu)
    redact(pdu, version)
    assert repr(pdu) == before


@pytest.mark.parametrize("content", [None, "x", [1], 3])
def test_a_malformed_event_is_redacted_without_failing(content: Any) -> None:
    assert redact({"type": "m.room.member", "content": content}, FIRST_TO_LAST[-1])["content"] == content
    assert redact({"type": [content], "content": {"a": 1}}, FIRST_TO_LAST[-1])["content"] == {}
