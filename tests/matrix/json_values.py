"""Hypothesis strategies for JSON values and events."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
canonical_integers = st.integers(-(2**53) + 1, 2**53 - 1)
scalars = st.none() | st.booleans() | canonical_integers | texts
canonical_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
canonical_objects = st.dictionaries(texts, canonical_values, max_size=5)
"""Objects that canonical JSON can hold."""

event_types = st.sampled_from(
    [
        "m.room.message",
        "m.room.member",
        "m.room.create",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.aliases",
        "m.room.history_visibility",
        "m.room.redaction",
        "x.other",
    ]
)

# Keys that some redaction rule knows, so that contents are more than what every version drops.
_known_keys = st.sampled_from(
    [
        "membership",
        "creator",
        "join_rule",
        "allow",
        "ban",
        "invite",
        "users",
        "aliases",
        "history_visibility",
        "redacts",
        "join_authorised_via_users_server",
        "additional_creators",
    ]
)
contents = st.dictionaries(_known_keys | texts, canonical_values, max_size=5).flatmap(
    lambda content: st.sampled_from(
        [content, {**content, "third_party_invite": {"signed": {"token": "t"}, "display_name": "x"}}]
    )
)
event_ids = st.text("abcdefXYZ0189-_", min_size=43, max_size=43).map(lambda text: "$" + text)


@st.composite
def event_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `build_event`, but for room version, room id and key."""
    return {
        "sender": "@" + draw(st.text("abc0_", min_size=1, max_size=8)) + ":example.org",
        "type": draw(event_types),
        "state_key": draw(st.none() | texts),
        "content": draw(contents),
        "prev_events": draw(st.lists(event_ids, max_size=3, unique=True)),
        "auth_events": draw(st.lists(event_ids, max_size=3, unique=True)),
        "depth": draw(st.integers(0, 2**53 - 1)),
        "origin_server_ts": draw(st.integers(0, 2**53 - 1)),
    }
