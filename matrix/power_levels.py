"""Power levels: who may do what in a room, read from its create and power-levels events.

Old room versions accept strings and floats that stand for an integer; creators of version 12 stand above every number.
Nothing is parsed before it is asked for: a check of one message reads two or three members.
Source: "m.room.power_levels"; server-server API, "Definitions"; "Deprecated event content schemas" of versions 1 to 9.
"""

from __future__ import annotations

import math
import re
from typing import Any

from matrix.events import Event
from matrix.room_versions import RoomVersion

__all__ = [
    "CREATOR_LEVEL",
    "LEVEL_DEFAULTS",
    "BadPowerLevel",
    "PowerLevels",
    "check_integers",
    "creators_of",
    "parse_level",
]

CREATOR_LEVEL = math.inf
"""The level of creators where the room version privileges them: above every integer."""

LEVEL_DEFAULTS = {
    "users_default": 0,
    "events_default": 0,
    "state_default": 50,
    "ban": 50,
    "redact": 50,
    "kick": 50,
    "invite": 0,
}
"""The levels with a name of their own, and what each is if the event does not say."""

_CREATOR_LEVEL_WITHOUT_EVENT = 100

# White space of any kind, a sign, and digits with any number of leading zeroes; of others no more than a comparison needs.
_STRINGY_LEVEL = re.compile(r"\s*([+-]?)(?=[0-9])0*+([0-9]{0,400})\s*")


class BadPowerLevel(ValueError):
    """A value that is no power level in this room version."""


def parse_level(value: Any, room_version: RoomVersion) -> int:
    """The integer that a power level stands for; BadPowerLevel if it stands for none."""
    if type(value) is int:
        return value
    if not room_version.integer_power_levels:
        if isinstance(value, str) and (match := _STRINGY_LEVEL.fullmatch(value)):
            return int(match[1] + (match[2] or "0"))
        if isinstance(value, float) and math.isfinite(value):
            # What comes after the point is cut off.
            return int(value)
    raise BadPowerLevel(f"{value!r:.40} is not a power level")


def check_integers(content: dict[str, Any]) -> None:
    """BadPowerLevel unless all levels of a content are integers, and all mappings objects.

    What newer versions demand of events, and all of them of whoever makes one ("Deprecated event content schemas").
    """
    levels = [content[name] for name in LEVEL_DEFAULTS if name in content]
    for mapping in ("events", "notifications", "users"):
        entries = content.get(mapping, {})
        if not isinstance(entries, dict):
            raise BadPowerLevel(f"{mapping} is not an object")
        levels += entries.values()
    for level in levels:
        if type(level) is not int:
            raise BadPowerLevel(f"{level!r:.40} is not a power level")


def creators_of(create: Event) -> tuple[str, ...]:
    """The creators of a room, its sender (or, before version 11, `content.creator`) first."""
    rules = create.room_version
    if not rules.creator_is_create_sender:
        creator = create.content.get("creator")
        return (creator,) if isinstance(creator, str) else ()
    if rules.privileged_creators:
        additional = create.content.get("additional_creators")
        if isinstance(additional, list):
            return (create.sender, *(user for user in additional if isinstance(user, str)))
    return (create.sender,)


class PowerLevels:
    """The levels in force, given a room's create event and its current power-levels event, if any."""

    __slots__ = ("_content", "_create", "_exists", "_rules")

    def __init__(self, create: Event, power_levels: Event | None) -> None:
        self._create = create
        self._rules = create.room_version
        self._exists = power_levels is not None
        self._content: dict[str, Any] = {} if power_levels is None else power_levels.content

    def named(self, name: str) -> int:
        """One of `LEVEL_DEFAULTS`, as set or by default."""
        value = self._content.get(name)
        return LEVEL_DEFAULTS[name] if value is None else parse_level(value, self._rules)

    def of_user(self, user_id: str) -> int | float:
        """A user's level; `CREATOR_LEVEL` for a privileged creator."""
        if self._rules.privileged_creators:
            if user_id == self._create.sender or user_id in creators_of(self._create):
                return CREATOR_LEVEL
        elif not self._exists and user_id in creators_of(self._create):
            # A room without power levels obeys its creator.
            return _CREATOR_LEVEL_WITHOUT_EVENT
        value = self._entry("users", user_id)
        return self.named("users_default") if value is None else parse_level(value, self._rules)

    def to_send(self, event_type: str, *, is_state: bool) -> int:
        """The level required to send an event of this type."""
        value = self._entry("events", event_type)
        if value is None:
            return self.named("state_default" if is_state else "events_default")
        return parse_level(value, self._rules)

    def to_notify(self, key: str) -> int:
        """The level required for a notification such as `room`; 50 if unset."""
        value = self._entry("notifications", key)
        return 50 if value is None else parse_level(value, self._rules)

    def _entry(self, mapping: str, key: str) -> Any:
        entries = self._content.get(mapping)
        if entries is None:
            return None
        if not isinstance(entries, dict):
            raise BadPowerLevel(f"{mapping} is not an object")
        return entries.get(key)
