"""The event format of each room version: sizes, types, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from matrix.errors import MatrixError
from matrix.events import Event, check_format
from matrix.room_versions import ROOM_VERSIONS, RoomVersion

V1, V5, V6, V11, V12 = (ROOM_VERSIONS[number] for number in ("1", "5", "6", "11", "12"))

PDU: dict[str, Any] = {
    "auth_events": ["$a"],
    "content": {"body": "x"},
    "depth": 1,
    "hashes": {"sha256": "x"},
    "origin_server_ts": 1,
    "prev_events": ["$p"],
    "room_id": "!r:x",
    "sender": "@a:x",
    "signatures": {"x": {"ed25519:a": "s"}},
    "state_key": "",
    "type": "m.room.name",
    "unsigned": {},
}
PDU_V1 = {**PDU, "event_id": "$e:x", "auth_events": [["$a:x", {"sha256": "h"}]], "prev_events": []}


def refusal(pdu: Any, version: RoomVersion = V12) -> str:
    with pytest.raises(MatrixError) as refused:
        check_format(pdu, version)
    return refused.value.errcode


def test_a_complete_event_is_accepted_in_every_version() -> None:
    for version in ROOM_VERSIONS.values():
        check_format(PDU_V1 if version.references_carry_hashes else PDU, version)


@pytest.mark.parametrize("field", sorted(set(PDU) - {"state_key", "unsigned"}))
def test_a_required_field_cannot_be_absent(field: str) -> None:
    assert refusal({key: value for key, value in PDU.items() if key != field}) == "M_BAD_JSON"


@pytest.mark.parametrize("field", ["state_key", "unsigned"])
def test_a_message_without_unsigned_is_an_event(field: str) -> None:
    check_format({key: value for key, value in PDU.items() if key != field}, V12)


@pytest.mark.parametrize("field", sorted(PDU))
@pytest.mark.parametrize("value", [None, True, 1.5, "text", 7, [], {}, [1], {"a": 1}, [["$a", {}]]])
def test_a_field_of_the_wrong_type_is_refused_and_never_fails_otherwise(field: str, value: Any) -> None:
    try:
        check_format({**PDU, field: value}, V12)
    except MatrixError as error:
        assert error.errcode == "M_BAD_JSON"
    else:
        assert type(value) is type(PDU[field])


@pytest.mark.parametrize("pdu", [None, [], "x", 1, {}])
def test_what_is_no_object_is_no_event(pdu: Any) -> None:
    assert refusal(pdu) == "M_BAD_JSON"


@pytest.mark.parametrize("field", ["type", "state_key", "sender", "room_id"])
def test_a_field_has_at_most_255_bytes(field: str) -> None:
    prefix = {"sender": "@a:", "room_id": "!a:"}.get(field, "aaa")
    check_format({**PDU, field: prefix + "x" * 252}, V12)
    assert refusal({**PDU, field: prefix + "x" * 253}) == "M_TOO_LARGE"
    assert refusal({**PDU, field: prefix + "é" * 127}) == "M_TOO_LARGE"


def test_an_event_has_at_most_65536_bytes() -> None:
    def with_bytes(size: int) -> dict[str, Any]:
        empty = len(
            b'{"auth_events":["$a"],"content":{"body":""},"depth":1,"hashes":{"sha256":"x"},"origin_server_ts":1,'
            b'"prev_events":["$p"],"room_id":"!r:x","sender":"@a:x","signatures":{"x":{"ed25519:a":"s"}},"state_key":"",'
            b'"type":"m.room.name","unsigned":{}}'
        )
        return {**PDU, "content": {"body": "x" * (size - empty)}}

    check_format(with_bytes(65_536), V12)
    assert refusal(with_bytes(65_537)) == "M_TOO_LARGE"


def test_an_event_names_at_most_20_previous_and_10_auth_events() -> None:
    check_format({**PDU, "prev_events": ["$p"] * 20, "auth_events": ["$a"] * 10}, V12)
    assert refusal({**PDU, "prev_events": ["$p"] * 21}) == "M_BAD_JSON"
    assert refusal({**PDU, "auth_events": ["$a"] * 11}) == "M_BAD_JSON"


@pytest.mark.parametrize("reference", ["p", "", "$", 1, None, ["$p", {}], "$" + "p" * 255])
def test_what_an_event_names_is_an_event_id(reference: Any) -> None:
    assert refusal({**PDU, "prev_events": [reference]}) == "M_BAD_JSON"


@pytest.mark.parametrize("reference", ["$p:x", ["$p:x"], ["$p:x", "h"], ["$p:x", {}, 1], [1, {}], []])
def test_versions_1_and_2_name_events_with_their_hashes(reference: Any) -> None:
    assert refusal({**PDU_V1, "prev_events": [reference]}, V1) == "M_BAD_JSON"
    check_format({**PDU_V1, "prev_events": [["$p:x", {"sha256": "h"}]]}, V1)


@pytest.mark.parametrize("event_id", [None, "e", "$e", "e:x", 1])
def test_versions_1_and_2_carry_an_event_id_with_a_domain(event_id: Any) -> None:
    assert refusal({**PDU_V1, "event_id": event_id}, V1) == "M_BAD_JSON"


@pytest.mark.parametrize("event_id", ["$e:x", "", None])
def test_no_other_version_carries_an_event_id(event_id: Any) -> None:
    for version in ROOM_VERSIONS.values():
        if not version.event_id_server_must_sign:
            assert refusal({**PDU, "event_id": event_id}, version) == "M_BAD_JSON"


def test_an_event_id_has_at_most_255_bytes() -> None:
    check_format({**PDU_V1, "event_id": "$" + "e" * 252 + ":x"}, V1)
    assert refusal({**PDU_V1, "event_id": "$" + "e" * 253 + ":x"}, V1) == "M_TOO_LARGE"


@pytest.mark.parametrize("hashes", [{}, {"sha256": None}, {"sha256": 1}, {"md5": "x"}])
def test_an_event_carries_its_sha256(hashes: dict[str, Any]) -> None:
    assert refusal({**PDU, "hashes": hashes}) == "M_BAD_JSON"


@pytest.mark.parametrize("signatures", [{"x": "s"}, {"x": None}, {"x": {"ed25519:a": 1}}, {"x": {}, "y": {"k": None}}])
def test_signatures_are_strings_by_server_and_key(signatures: dict[str, Any]) -> None:
    assert refusal({**PDU, "signatures": signatures}) == "M_BAD_JSON"
    check_format({**PDU, "signatures": {"x": {}, "y": {"ed25519:a": "s", "other": "t"}}}, V12)


def test_depth_ends_where_the_version_s_integers_end() -> None:
    check_format({**PDU, "depth": 2**53 - 1}, V6)
    check_format({**PDU, "depth": 2**63 - 1}, V5)
    assert refusal({**PDU, "depth": 2**53}, V6) == "M_BAD_JSON"
    assert refusal({**PDU, "depth": 2**63}, V5) == "M_BAD_JSON"
    assert refusal({**PDU, "depth": -1}, V5) == "M_BAD_JSON"


@pytest.mark.parametrize("content", [{"a": 0.5}, {"a": 2**53}, {"a": -(2**60)}])
def test_canonical_json_is_enforced_from_version_6_on(content: dict[str, Any]) -> None:
    check_format({**PDU, "content": content}, V5)
    assert refusal({**PDU, "content": content}, V6) == "M_BAD_JSON"


def test_only_the_create_event_of_version_12_has_no_room_id() -> None:
    create = {key: value for key, value in PDU.items() if key != "room_id"} | {"type": "m.room.create"}
    check_format(create, V12)
    assert refusal(create, V11) == "M_BAD_JSON"
    assert refusal({**create, "type": "m.room.name"}, V12) == "M_BAD_JSON"


@pytest.mark.parametrize("sender", ["a:x", "@a", "@a:", "@a\0:x", ""])
def test_the_sender_is_a_user_id(sender: str) -> None:
    assert refusal({**PDU, "sender": sender}) == "M_BAD_JSON"


def test_a_room_id_has_its_sigil() -> None:
    assert refusal({**PDU, "room_id": "r:x"}) == "M_BAD_JSON"


def test_depth_of_nesting_beyond_what_can_be_written_is_bad_json() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    assert refusal({**PDU, "content": deep}) == "M_BAD_JSON"


def test_a_given_id_is_taken_and_an_absent_one_computed() -> None:
    given = Event.from_pdu(PDU, V12, "$given")
    computed = Event.from_pdu(PDU, V12)
    assert given.event_id == "$given"
    assert len(computed.event_id) == 44
    assert Event.from_pdu(PDU_V1, V1).event_id == "$e:x"
    assert not given.rejected
    assert computed.state_key == ""
