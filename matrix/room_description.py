"""What a room says of itself to those who are not in it: the entry of directories, space hierarchies and summaries.

Pure. Invariant: what does not have the type that the specification promises is left out. Source: client-server API,
"PublishedRoomsChunk" and "RoomSummary".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["DESCRIBING_TYPES", "describe", "summarise"]

Json = dict[str, Any]

DESCRIBING_TYPES: Final = (
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
)
"""Types of the state events, with an empty state key, that `describe` and `summarise` look at."""

_FIELDS: Final = (
    ("name", "m.room.name", "name"),
    ("canonical_alias", "m.room.canonical_alias", "alias"),
    ("avatar_url", "m.room.avatar", "url"),
    ("join_rule", "m.room.join_rules", "join_rule"),
    ("room_type", "m.room.create", "type"),
)


def describe(room_id: str, joined: int, contents: Mapping[str, Json]) -> Json:
    """A room's entry in the directory. `contents` are those of its describing state by type, as redactions leave them."""

    def content(event_type: str, name: str) -> Any:
        return contents.get(event_type, {}).get(name)

    room: Json = {
        "room_id": room_id,
        "num_joined_members": joined,
        "world_readable": content("m.room.history_visibility", "history_visibility") == "world_readable",
        "guest_can_join": content("m.room.guest_access", "guest_access") == "can_join",
    }
    for name, event_type, key in _FIELDS:
        value = content(event_type, key)
        if isinstance(value, str) and value:
            room[name] = value
    topic = _topic(contents.get("m.room.topic", {}))
    if topic:
        room["topic"] = topic
    return room


def summarise(room_id: str, joined: int, contents: Mapping[str, Json], room_version: str) -> Json:
    """A room's summary: its entry with what only those who may join are told."""
    room = describe(room_id, joined, contents)
    room["room_version"] = room_version
    algorithm = contents.get("m.room.encryption", {}).get("algorithm")
    if isinstance(algorithm, str) and algorithm:
        room["encryption"] = algorithm
    if room.get("join_rule") in ("restricted", "knock_restricted"):
        room["allowed_room_ids"] = allowed_rooms(contents.get("m.room.join_rules", {}))
    return room


def allowed_rooms(join_rules: Json) -> list[str]:
    """The rooms whose members may join, as the content of restricted join rules says."""
    allow = join_rules.get("allow")
    if not isinstance(allow, list):
        return []
    return [
        condition["room_id"]
        for condition in allow
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]


def plain_topic(content: Mapping[str, Any]) -> str | None:
    """The `text/plain` representation of an `m.room.topic`'s `m.topic`; None where it has none."""
    extensible = content.get("m.topic")
    representations = extensible.get("m.text") if isinstance(extensible, dict) else None
    for one in representations if isinstance(representations, list) else ():
        if (
            isinstance(one, dict)
            and one.get("mimetype", "text/plain") == "text/plain"
            and isinstance(one.get("body"), str)
        ):
            body: str = one["body"]
            return body
    return None


def _topic(content: Json) -> str | None:
    # "The plain text topic of the room. Omitted if no text/plain mimetype exists in m.room.topic."
    plain, topic = plain_topic(content), content.get("topic")
    return plain if plain is not None else topic if isinstance(topic, str) else None
