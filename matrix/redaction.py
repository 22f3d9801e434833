"""Redaction: what is left of an event when its content is taken away.

The essential keys are those that auth rules and the room's graph need, so a redacted event keeps its id, its
signatures and its effect on the room. Source: "Redactions" of each room version.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from matrix.room_versions import RoomVersion

__all__ = ["redact", "redact_content"]

_TOP_LEVEL = (
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
)


@cache
def _top_level_keys(room_version: RoomVersion) -> tuple[str, ...]:
    if room_version.redaction.keeps_origin_membership_and_prev_state:
        return (*_TOP_LEVEL, "prev_state", "origin", "membership")
    return _TOP_LEVEL


@cache
def _content_keys(room_version: RoomVersion) -> dict[str, tuple[str, ...]]:
    rules = room_version.redaction
    kept = {
        "m.room.member": ["membership"],
        "m.room.create": ["creator"],
        "m.room.join_rules": ["join_rule"],
        "m.room.power_levels": [
            "ban",
            "events",
            "events_default",
            "kick",
            "redact",
            "state_default",
            "users",
            "users_default",
        ],
        "m.room.history_visibility": ["history_visibility"],
    }
    if rules.keeps_aliases:
        kept["m.room.aliases"] = ["aliases"]
    if rules.keeps_join_rules_allow:
        kept["m.room.join_rules"].append("allow")
    if rules.keeps_join_authorised_via_users_server:
        kept["m.room.member"].append("join_authorised_via_users_server")
    if rules.keeps_power_levels_invite:
        kept["m.room.power_levels"].append("invite")
    if rules.keeps_redacts:
        kept["m.room.redaction"] = ["redacts"]
    return {event_type: tuple(keys) for event_type, keys in kept.items()}


def redact_content(event_type: str, content: dict[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """The part of a content that survives redaction; a new object, except where everything survives."""
    rules = room_version.redaction
    if event_type == "m.room.create" and rules.keeps_all_of_create:
        return content
    keys = _content_keys(room_version).get(event_type)
    if keys is None:
        return {}
    kept = {key: content[key] for key in keys if key in content}
    if event_type == "m.room.member" and rules.keeps_third_party_invite_signed:
        # A third-party invite keeps the part that the auth rules verify.
        invite = content.get("third_party_invite")
        if isinstance(invite, dict) and "signed" in invite:
            kept["third_party_invite"] = {"signed": invite["signed"]}
    return kept


def redact(pdu: dict[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """A copy of the PDU with its essential keys alone. `unsigned` goes too; `signatures` and `hashes` stay."""
    kept = {key: pdu[key] for key in _top_level_keys(room_version) if key in pdu}
    content = kept.get("content")
    if isinstance(content, dict):
        event_type = kept.get("type")
        kept["content"] = redact_content(event_type if isinstance(event_type, str) else "", content, room_version)
    return kept
