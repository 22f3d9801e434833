"""Building events: what comes out is what hashing, signing and serialising one after another would make."""

from __future__ import annotations

from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import event_arguments

from matrix.errors import MatrixError
from matrix.events import MAX_EVENT_BYTES, Event, build_event, check_format
from matrix.hashes import content_hash, event_id_of
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey, sign_event

KEY = SigningKey("ed25519:a", bytes(range(32)))
V1, V10, V11, V12 = (ROOM_VERSIONS[number] for number in ("1", "10", "11", "12"))


def build(version: RoomVersion = V12, **arguments: Any) -> tuple[Event, bytes]:
    defaults: dict[str, Any] = {
        "room_id": "!r:example.org",
        "sender": "@a:example.org",
        "type": "m.room.message",
        "state_key": None,
        "content": {"body": "x"},
        "prev_events": [],
        "auth_events": [],
        "depth": 1,
        "origin_server_ts": 1,
        "server_name": "example.org",
        "signing_key": KEY,
    }
    return build_event(room_version=version, **{**defaults, **arguments})


@given(st.sampled_from(list(ROOM_VERSIONS.values())), event_arguments(), st.none() | st.just("$redacted:x"))
def test_every_event_is_the_one_that_the_long_way_makes(
    version: RoomVersion, arguments: dict[str, Any], redacts: str | None
) -> None:
    if version.room_id_is_create_event_id and arguments["type"] == "m.room.create":
        arguments["room_id"] = None
    hashes = dict.fromkeys([*arguments["prev_events"], *arguments["auth_events"]], "aGFzaA")
    event, canonical = build(version, **arguments, redacts=redacts, reference_hashes=hashes)

    bare = {key: value for key, value in event.pdu.items() if key not in ("hashes", "signatures")}
    hashed = {**bare, "hashes": {"sha256": content_hash(bare, version)}}
    assert event.pdu == sign_event(hashed, version, "example.org", KEY)
    assert canonical == canonicaljson.encode_canonical_json(event.pdu)
    assert event.event_id == event_id_of(event.pdu, version)
    check_format(event.pdu, version, canonical)

    again = Event.from_pdu(event.pdu, version)
    assert all(getattr(again, name) == getattr(event, name) for name in Event.__slots__)
    assert list(event.prev_events) == arguments["prev_events"]
    assert list(event.auth_events) == arguments["auth_events"]


@pytest.mark.parametrize(("version", "limit"), [(V1, 2**63 - 1), (ROOM_VERSIONS["6"], 2**53 - 1), (V12, 2**53 - 1)])
def test_in_a_room_at_the_limit_of_depth_events_stay_there(version: RoomVersion, limit: int) -> None:
    for depth, expected in ((limit - 1, limit - 1), (limit, limit), (limit + 1, limit)):
        event, canonical = build(version, depth=depth)
        assert event.depth == event.pdu["depth"] == expected
        check_format(event.pdu, version, canonical)


def test_a_create_event_of_version_12_names_its_room() -> None:
    create, _ = build(type="m.room.create", state_key="", room_id=None, content={"room_version": "12"})
    assert "room_id" not in create.pdu
    assert create.room_id == "!" + create.event_id[1:]


def test_a_create_event_of_earlier_versions_is_given_its_room() -> None:
    create, _ = build(V11, type="m.room.create", state_key="", content={"room_version": "11"})
    assert create.room_id == create.pdu["room_id"] == "!r:example.org"


def test_what_is_redacted_stands_where_the_version_keeps_it() -> None:
    old, _ = build(V10, type="m.room.redaction", content={}, redacts="$x")
    new, _ = build(V11, type="m.room.redaction", content={}, redacts="$x")
    assert (old.pdu["redacts"], old.content) == ("$x", {})
    assert new.content == {"redacts": "$x"}
    assert "redacts" not in new.pdu
    assert old.redacts == new.redacts == "$x"


def test_only_a_redaction_redacts() -> None:
    event, _ = build(V11, content={"redacts": "$x"})
    assert event.redacts is None


def test_an_event_of_version_1_carries_an_id_and_the_hashes_of_what_it_names() -> None:
    event, _ = build(V1, prev_events=["$p:x"], auth_events=["$q:x"], reference_hashes={"$p:x": "cA", "$q:x": "cQ"})
    assert event.pdu["event_id"] == event.event_id
    assert event.event_id.endswith(":example.org")
    assert event.pdu["prev_events"] == [["$p:x", {"sha256": "cA"}]]
    assert event.pdu["auth_events"] == [["$q:x", {"sha256": "cQ"}]]
    assert event.prev_events == ("$p:x",)


def test_what_is_built_does_not_share_the_lists_of_its_caller() -> None:
    prev_events = ["$p"]
    event, _ = build(prev_events=prev_events)
    prev_events.append("$q")
    assert event.prev_events == ("$p",)
    assert event.pdu["prev_events"] == ["$p"]


def _body_for_size(size: int) -> str:
    _, canonical = build(content={"body": ""})
    return "x" * (size - len(canonical))


def test_an_event_of_65536_bytes_is_the_largest() -> None:
    _, canonical = build(content={"body": _body_for_size(MAX_EVENT_BYTES)})
    assert len(canonical) == 65_536
    with pytest.raises(MatrixError) as refused:
        build(content={"body": _body_for_size(MAX_EVENT_BYTES + 1)})
    assert (refused.value.status, refused.value.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize("field", ["type", "state_key", "sender"])
def test_a_field_of_256_bytes_is_too_large(field: str) -> None:
    build(**{field: "@a:" + "x" * 252})
    with pytest.raises(MatrixError) as refused:
        build(**{field: "@a:" + "x" * 250 + "éé"})
    assert (refused.value.status, refused.value.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    "content", [{"a": 0.5}, {"a": 2**53}, {"a": [{"b": 1e3}]}, {"a": float("nan")}, {"a": "\ud800"}]
)
def test_a_content_that_is_not_canonical_is_refused_from_version_6_on(content: dict[str, Any]) -> None:
    with pytest.raises(MatrixError) as refused:
        build(content=content)
    assert refused.value.errcode == "M_BAD_JSON"


def test_old_versions_take_floats() -> None:
    _, canonical = build(ROOM_VERSIONS["5"], content={"a": 0.5})
    assert b'"content":{"a":0.5}' in canonical


@pytest.mark.parametrize("references", [{"prev_events": ["$a"] * 21}, {"auth_events": ["$a"] * 11}])
def test_an_event_has_at_most_20_previous_and_10_auth_events(references: dict[str, list[str]]) -> None:
    with pytest.raises(MatrixError):
        build(**references)


def test_the_null_character_is_kept() -> None:
    event, canonical = build(content={"body": "\0"})
    assert rb"\u0000" in canonical
    assert event.content["body"] == "\0"


def test_an_event_says_what_it_is() -> None:
    event, _ = build(type="m.room.name", state_key="", sender="@a:x:80")
    assert event.is_state
    assert event.sender_server == "x:80"
    assert repr(event) == f"<Event {event.event_id} m.room.name '' by @a:x:80>"
