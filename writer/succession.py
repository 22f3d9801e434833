"""What a room's successor begins with: the state that is carried over from the room it replaces.

Pure. Invariant: nothing the new room's version forbids is carried. The power levels come last: until they are set the creator of
a room may do everything, whatever level they had before.
Source: client-server API, "Room upgrades", "Server behaviour"; MSC4289 for creators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from matrix.canonical import MAX_CANONICAL_INTEGER, check_canonical
from matrix.errors import MatrixError
from matrix.events import Event
from matrix.identifiers import is_user_id
from matrix.power_levels import LEVEL_DEFAULTS, BadPowerLevel, creators_of, parse_level
from matrix.room_versions import RoomVersion
from writer.drafts import Draft
from writer.views import StateKey

LEVELS: StateKey = ("m.room.power_levels", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")
CANONICAL_ALIAS: StateKey = ("m.room.canonical_alias", "")
SPACE: Final = "m.space"
CARRIED: Final = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.policy",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
)
"""The types with an empty state key that are carried over; members who are banned and a space's children are, too."""

_LEVEL_TO_REPLACE = 150


@dataclass(frozen=True, slots=True)
class Succession:
    """A room about to be replaced: its create event, what of its state is carried over (contents by key), its last event."""

    create: Event
    state: dict[StateKey, dict[str, Any]]
    last_event: str

    def create_content(self, version: RoomVersion, creator: str, additional: list[str]) -> dict[str, Any]:
        """The content of the new room's create event."""
        old = self.create.content
        predecessor = {"room_id": self.create.room_id}
        if not version.room_id_is_create_event_id:
            predecessor["event_id"] = self.last_event
        content: dict[str, Any] = {"room_version": version.identifier, "predecessor": predecessor}
        if not version.creator_is_create_sender:
            content["creator"] = creator
        if old.get("m.federate") is False:
            content["m.federate"] = False
        # "a type field which is copied from the predecessor room"
        if isinstance(old.get("type"), str):
            content["type"] = old["type"]
        creators = [user_id for user_id in dict.fromkeys(additional) if user_id != creator]
        if version.privileged_creators and creators:
            content["additional_creators"] = creators
        return content

    def drafts(
        self, room_id: str, version: RoomVersion, creator: str, additional: list[str], names: dict[str, str]
    ) -> list[Draft]:
        """What follows the create event, in order. `names` are what the creator's member event says of them."""
        made: list[Draft] = []

        def add(key: StateKey, content: dict[str, Any]) -> None:
            made.append(Draft(room_id, creator, key[0], content, state_key=key[1]))

        add(("m.room.member", creator), {"membership": "join", **names})
        for key, content in self.state.items():
            if key not in (LEVELS, JOIN_RULES) and (key[0] != "m.space.child" or self._is_space):
                add(key, _canonical_part(content) if version.enforce_canonical_json else content)
        # Who is banned is banned before anybody can join.
        add(JOIN_RULES, _join_rules(self.state.get(JOIN_RULES, {}), version))
        levels = self._levels(version, [creator, *additional])
        if levels is not None:
            add(LEVELS, levels)
        return made

    @property
    def _is_space(self) -> bool:
        return self.create.content.get("type") == SPACE

    def _levels(self, version: RoomVersion, creators: list[str]) -> dict[str, Any] | None:
        old = self.state.get(LEVELS)
        former = creators_of(self.create) if self.create.room_version.privileged_creators else ()
        if old is None and (version.privileged_creators or not former):
            return None
        content = _as_integers(old or {}, self.create.room_version)
        users = content.get("users")
        users = dict(users) if isinstance(users, dict) else {}
        if version.privileged_creators:
            # "Creators … may not be named in power levels"; who was one before and is none now has what they are given.
            content["users"] = {user_id: level for user_id, level in users.items() if user_id not in creators}
            events = content.get("events")
            events = dict(events) if isinstance(events, dict) else {}
            state_default = content.get("state_default", LEVEL_DEFAULTS["state_default"])
            # "MUST have the level required to send m.room.tombstone events be higher than the level … to send state events"
            if events.get("m.room.tombstone", state_default) <= state_default:
                events["m.room.tombstone"] = min(max(_LEVEL_TO_REPLACE, state_default + 1), MAX_CANONICAL_INTEGER)
            content["events"] = events
        else:
            # Creators could do what takes more than 100, such as replacing the room: somebody has to be able to still.
            highest = max([100, *_levels_in(content)]) if former else 0
            for user_id in former:
                if is_user_id(user_id):
                    users[user_id] = highest
            content["users"] = users
        return content


def restricted_levels(content: dict[str, Any], version: RoomVersion) -> dict[str, Any] | None:
    """The power levels that keep people from talking in a room that was replaced; None if they do so already.

    "setting events_default and invite to the greater of 50 and users_default + 1"
    """

    def level(name: str) -> int:
        try:
            return LEVEL_DEFAULTS[name] if content.get(name) is None else parse_level(content[name], version)
        except BadPowerLevel:
            return LEVEL_DEFAULTS[name]

    least = max(50, level("users_default") + 1)
    changed = {name: least for name in ("events_default", "invite") if level(name) < least}
    return {**content, **changed} if changed else None


def without_aliases(content: dict[str, Any], moved: Iterable[str]) -> dict[str, Any] | None:
    """A canonical alias without the aliases that point elsewhere now; None if it names none of them."""
    gone = set(moved)
    kept = dict(content)
    if content.get("alias") in gone:
        del kept["alias"]
    others = content.get("alt_aliases")
    if isinstance(others, list) and gone.intersection(one for one in others if isinstance(one, str)):
        kept["alt_aliases"] = [one for one in others if one not in gone]
        if not kept["alt_aliases"]:
            del kept["alt_aliases"]
    return kept if kept != content else None


def _join_rules(content: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    known = {"public", "invite", "private"}
    if version.knocking:
        known.add("knock")
    if version.restricted_join_rule:
        known.add("restricted")
    if version.knock_restricted_join_rule:
        known.add("knock_restricted")
    # A rule that the version does not know lets nobody in; invitations always do.
    fits = content.get("join_rule") in known and (not version.enforce_canonical_json or _is_canonical(content))
    return content if fits else {"join_rule": "invite"}


def _canonical_part(content: dict[str, Any]) -> dict[str, Any]:
    """What of a content newer versions can hold: a ban stands, whatever else its event says."""
    return {name: value for name, value in content.items() if _is_canonical({name: value})}


def _is_canonical(content: dict[str, Any]) -> bool:
    try:
        check_canonical(content)
    except MatrixError:
        return False
    return True


def _levels_in(content: dict[str, Any]) -> list[int]:
    """Every level that power levels name."""
    maps = [content.get(name) for name in ("users", "events", "notifications")]
    values = [content.get(name) for name in LEVEL_DEFAULTS]
    values += [value for entries in maps if isinstance(entries, dict) for value in entries.values()]
    return [value for value in values if type(value) is int]


def _as_integers(content: dict[str, Any], former: RoomVersion) -> dict[str, Any]:
    """Power levels as all versions want them of who makes them: integers that stand for what they were in the former room."""

    def integer(value: Any) -> int | None:
        try:
            return max(-MAX_CANONICAL_INTEGER, min(parse_level(value, former), MAX_CANONICAL_INTEGER))
        except BadPowerLevel:
            return None

    levels: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("users", "events", "notifications"):
            entries = value.items() if isinstance(value, dict) else ()
            levels[name] = {key: level for key, entry in entries if (level := integer(entry)) is not None}
            if name == "users":
                levels[name] = {user_id: level for user_id, level in levels[name].items() if is_user_id(user_id)}
        elif name in LEVEL_DEFAULTS:
            if (level := integer(value)) is not None:
                levels[name] = level
        elif _is_canonical({name: value}):
            levels[name] = value
    return levels
