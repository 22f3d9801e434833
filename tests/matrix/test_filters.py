"""Filters: what passes, and which definitions are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.errors import MatrixError
from matrix.filters import EventFilter, RoomEventFilter, parse_filter, parse_room_event_filter

ROOM = "!room:example.org"
ALICE = "@alice:example.org"


def timeline(**members: Any) -> RoomEventFilter:
    return parse_filter({"room": {"timeline": members}}).room.timeline


def test_an_empty_filter_takes_everything() -> None:
    empty = parse_filter({})
    assert empty.event_fields is None
    assert empty.event_format == "client"
    assert empty.room.timeline.takes_all
    assert empty.room.timeline.matches_in_room(ROOM, "m.room.message", ALICE, lambda: False)
    assert empty.room.takes_room(ROOM)
    assert empty.presence.matches("m.presence", ALICE)
    assert not empty.room.include_leave
    assert not empty.lazy_load_members
    assert not empty.include_redundant_members


@pytest.mark.parametrize(
    ("members", "passes"),
    [
        ({"types": ["m.room.*"]}, True),
        ({"types": ["m.room.name"]}, False),
        ({"types": []}, False),
        ({"types": ["*"], "not_types": ["m.room.message"]}, False),
        ({"not_types": ["m.*.name", "m.reaction"]}, True),
        ({"not_types": ["*"]}, False),
        ({"senders": [ALICE]}, True),
        ({"senders": []}, False),
        ({"not_senders": [ALICE]}, False),
        ({"senders": [ALICE], "not_senders": [ALICE]}, False),
        ({"rooms": [ROOM]}, True),
        ({"rooms": [ROOM], "not_rooms": [ROOM]}, False),
        ({"rooms": []}, False),
        ({"contains_url": True}, True),
        ({"contains_url": False}, False),
    ],
)
def test_what_is_excluded_does_not_pass_even_if_it_is_included(members: dict[str, Any], passes: bool) -> None:
    content = {"body": "photo.jpg", "url": "mxc://example.org/1"}
    assert timeline(**members).matches_in_room(ROOM, "m.room.message", ALICE, lambda: "url" in content) is passes


def test_an_event_without_a_sender_passes_only_where_senders_are_not_named() -> None:
    assert EventFilter(not_senders=(ALICE,)).matches("m.tag", None)
    assert not EventFilter(senders=(ALICE,)).matches("m.tag", None)


def test_a_filter_says_when_nothing_can_pass() -> None:
    assert timeline(types=[]).takes_nothing
    assert timeline(not_types=["*"]).takes_nothing
    assert not timeline(not_types=["m.*"]).takes_nothing


def test_every_member_of_a_definition_is_read() -> None:
    parsed = parse_filter(
        {
            "event_fields": ["type", r"content.m\.relates_to"],
            "event_format": "federation",
            "presence": {"limit": 5},
            "account_data": {"types": ["m.direct"]},
            "room": {
                "rooms": [ROOM],
                "not_rooms": ["!other:example.org"],
                "include_leave": True,
                "state": {"lazy_load_members": True, "include_redundant_members": True},
                "timeline": {"limit": 20, "unread_thread_notifications": True},
                "ephemeral": {"not_types": ["m.typing"]},
                "account_data": {"senders": [ALICE]},
            },
            "org.example.unknown": 1,
        }
    )
    assert parsed.event_fields == (("type",), ("content", "m.relates_to"))
    assert parsed.event_format == "federation"
    assert parsed.presence.limit == 5
    assert parsed.account_data.types == ("m.direct",)
    assert parsed.room.rooms == (ROOM,)
    assert not parsed.room.takes_room("!other:example.org")
    assert parsed.room.include_leave
    assert parsed.lazy_load_members
    assert parsed.include_redundant_members
    assert parsed.unread_thread_notifications
    assert parsed.room.timeline.limit == 20
    assert not parsed.room.ephemeral.matches("m.typing")
    assert parsed.room.account_data.senders == (ALICE,)


def test_messages_takes_the_filter_of_room_events_alone() -> None:
    parsed = parse_room_event_filter({"types": ["m.room.message"], "lazy_load_members": True})
    assert parsed.lazy_load_members
    assert not parsed.matches_in_room(ROOM, "m.room.name", ALICE, lambda: False)


@pytest.mark.parametrize(
    ("definition", "errcode"),
    [
        ([], "M_BAD_JSON"),
        ({"room": []}, "M_BAD_JSON"),
        ({"room": None}, "M_BAD_JSON"),
        ({"room": {"timeline": {"limit": "10"}}}, "M_BAD_JSON"),
        ({"room": {"timeline": {"limit": True}}}, "M_BAD_JSON"),
        ({"room": {"timeline": {"limit": -1}}}, "M_INVALID_PARAM"),
        ({"room": {"timeline": {"types": "m.room.message"}}}, "M_BAD_JSON"),
        ({"room": {"timeline": {"types": [1]}}}, "M_BAD_JSON"),
        ({"room": {"timeline": {"senders": ["alice"]}}}, "M_INVALID_PARAM"),
        ({"room": {"rooms": ["#alias:example.org"]}}, "M_INVALID_PARAM"),
        ({"room": {"state": {"lazy_load_members": 1}}}, "M_BAD_JSON"),
        ({"room": {"timeline": {"contains_url": None}}}, "M_BAD_JSON"),
        ({"room": {"include_leave": "yes"}}, "M_BAD_JSON"),
        ({"event_format": "html"}, "M_INVALID_PARAM"),
        ({"event_format": 1}, "M_BAD_JSON"),
        ({"event_fields": "type"}, "M_BAD_JSON"),
        ({"presence": {"types": ["a"] * 10_001}}, "M_INVALID_PARAM"),
    ],
)
def test_a_definition_of_the_wrong_type_or_value_is_refused_with_its_place(definition: Any, errcode: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        parse_filter(definition)
    assert (refusal.value.status, refusal.value.errcode) == (400, errcode)
    assert refusal.value.error


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["room", "timeline", "state", "types", "limit", "rooms", "presence", "event_fields", "senders"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_a_filter_or_is_refused(definition: Any) -> None:
    try:
        parsed = parse_filter(definition)
    except MatrixError as refusal:
        assert refusal.status == 400
    else:
        parsed.room.timeline.matches_in_room(ROOM, "m.room.message", ALICE, lambda: False)
