"""Authorisation of m.room.power_levels events: nobody touches or grants what is above them.

Part of `auth_rules`, which is what others call. Comments number the rules as room version 12 does (rule 10).
Source: "Authorisation rules" of each room version.
"""

from __future__ import annotations

from typing import Any

from matrix.auth_selection import AuthError
from matrix.events import Event
from matrix.identifiers import is_user_id
from matrix.power_levels import LEVEL_DEFAULTS, BadPowerLevel, check_integers, creators_of, parse_level
from matrix.room_versions import RoomVersion

__all__ = ["check_power_levels"]


def check_form_of_power_levels(content: dict[str, Any], create: Event) -> dict[str, int]:
    """Rules 10.1 to 10.4: the levels are well formed, whoever sends them. Returns those of `users`.

    Raises AuthError, or BadPowerLevel for malformed levels.
    """
    rules = create.room_version
    if rules.integer_power_levels:
        # 10.1 The levels with names of their own are integers.
        # 10.2 So is everything in `events` and `notifications`.
        check_integers(content)
    # 10.3 `users` maps user ids to integers (or what stands for one, before version 10).
    users = _parse_levels(content, "users", rules)
    if not all(is_user_id(user) for user in users):
        raise AuthError("users has a key that is not a user ID.")
    # 10.4 It does not name the creators, whose power nothing can change.
    if rules.privileged_creators and any(creator in users for creator in creators_of(create)):
        raise AuthError("Power levels may not name the creators of the room.")
    return users


def check_power_levels(event: Event, create: Event, current: Event | None, level: int | float) -> None:
    """Rule 10: the new levels are well formed, and none is touched or set beyond `level`, the sender's own.

    Raises AuthError, or BadPowerLevel for malformed levels.
    """
    rules = create.room_version
    content = event.content
    users = check_form_of_power_levels(content, create)
    # 10.5 The first levels of a room may be any.
    if current is None:
        return
    # 10.6 A level with a name of its own is touched by who has it, and set to what they have at most.
    old_named = _parse_named(current.content, rules)
    new_named = _parse_named(content, rules)
    _check_changes("", old_named, new_named, level)
    # 10.7 and 10.8 The same holds for each entry of `events` and `notifications`.
    _check_changes(
        "events ", _parse_levels(current.content, "events", rules), _parse_levels(content, "events", rules), level
    )
    if rules.power_to_change_notifications:
        old_notifications = _parse_levels(current.content, "notifications", rules)
        _check_changes("notifications ", old_notifications, _parse_levels(content, "notifications", rules), level)
    # 10.9 A user's entry is touched by who has more than it says, or by that user.
    old_users = _parse_levels(current.content, "users", rules)
    for user, old in old_users.items():
        if user != event.sender and users.get(user) != old and old >= level:
            raise AuthError(f"The sender's power level does not allow changing that of {user}.")
    # 10.10 It is set to what the sender has at most.
    for user, new in users.items():
        if old_users.get(user) != new and new > level:
            raise AuthError(f"The sender's power level does not allow giving {user} the level {new}.")


def _parse_levels(content: dict[str, Any], mapping: str, rules: RoomVersion) -> dict[str, int]:
    entries = content.get(mapping, {})
    if not isinstance(entries, dict):
        raise BadPowerLevel(f"{mapping} is not an object")
    return {key: parse_level(value, rules) for key, value in entries.items()}


def _parse_named(content: dict[str, Any], rules: RoomVersion) -> dict[str, int]:
    return {name: parse_level(content[name], rules) for name in LEVEL_DEFAULTS if content.get(name) is not None}


def _check_changes(what: str, old: dict[str, int], new: dict[str, int], level: int | float) -> None:
    if old == new:
        return
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if (before is not None and before > level) or (after is not None and after > level):
            raise AuthError(f"The sender's power level does not allow changing {what}{name}.")
