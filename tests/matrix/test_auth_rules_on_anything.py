"""Whatever a content holds, the rules allow or reject: they never fail."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, CREATOR, AuthRoom
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.auth_rules import AuthError, check_against_state, check_event_alone
from matrix.redaction_rights import redaction_applies
from matrix.visibility import history_visibility_of, user_may_see

# Values that a rule may look at, among values that it must not stumble over.
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 100)
    | st.floats()
    | st.sampled_from(["", "join", "invite", "leave", "ban", "knock", "public", "restricted", "token", "50", CREATOR])
    | st.sampled_from([ALICE, "@", "x", "\0", "é"])
)
_KEYS = st.sampled_from(
    [
        *("membership", "join_rule", "third_party_invite", "signed", "mxid", "token", "signatures", "public_keys"),
        *("join_authorised_via_users_server", "users", "events", "notifications", "ban", "users_default", "redacts"),
        *("creator", "additional_creators", "m.federate", "room_version", "history_visibility", "public_key", ALICE),
    ]
)
_values = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5))
_contents = st.dictionaries(_KEYS, _values, max_size=6)
_TYPES = [
    "m.room.create",
    "m.room.member",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.third_party_invite",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.message",
]
_state_keys = st.sampled_from(["", "token", "x", CREATOR, ALICE])


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.sampled_from(ALL_VERSIONS),
    _contents,
    st.lists(st.tuples(st.sampled_from(_TYPES[1:]), _state_keys, _contents), max_size=5),
    st.sampled_from(_TYPES),
    st.sampled_from([CREATOR, ALICE]),
    st.none() | _state_keys,
    _contents,
)
def test_no_content_makes_a_rule_fail(
    version: str,
    create_content: dict[str, Any],
    state: list[tuple[str, str, dict[str, Any]]],
    type: str,
    sender: str,
    state_key: str | None,
    content: dict[str, Any],
) -> None:
    room = AuthRoom(version)
    room.create.content.update(create_content)
    for of_state in state:
        room.set(of_state[0], of_state[2], of_state[1])
    event = room.event(type, sender, state_key, content)
    with suppress(AuthError):
        check_event_alone(event, room.by_id)
    with suppress(AuthError):
        check_against_state(event, room.state)
    redaction_applies(event, room.create, room.state)
    user_may_see(event, ALICE, visibility="joined", membership="leave", joined_since=False)
    history_visibility_of(event)
