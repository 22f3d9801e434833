"""Which events of a room's state authorise an event, and how the rules say no.

Source: server-server API, "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matrix.events import Event
from matrix.room_versions import RoomVersion

__all__ = ["AuthError", "StateMap", "UnknownAuthEvent", "auth_event_keys"]

StateMap = Mapping[tuple[str, str], Event]
"""A room's state by type and state key."""

_CREATE = ("m.room.create", "")
_POWER_LEVELS = ("m.room.power_levels", "")
_JOIN_RULES = ("m.room.join_rules", "")


class AuthError(Exception):
    """The rules reject the event; `reason` is a sentence for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownAuthEvent(AuthError):
    """The rules cannot be applied: an event that this one rests on was not given."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"The auth event {event_id} is not known.")
        self.event_id = event_id


def auth_event_keys(
    type: str, sender: str, state_key: str | None, content: dict[str, Any], room_version: RoomVersion
) -> list[tuple[str, str]]:
    """The (type, state key) pairs of state that an event's auth events are selected from, without duplicates.

    Where the version's create event is no auth event (12), it is not among them, though `check_against_state` needs it.
    """
    # A create event rests on nothing.
    if type == "m.room.create":
        return []
    keys = [_CREATE, _POWER_LEVELS] if room_version.create_event_in_auth_events else [_POWER_LEVELS]
    keys.append(("m.room.member", sender))
    if type != "m.room.member":
        return keys
    # A membership rests on the one that it replaces, …
    if state_key is not None and state_key != sender:
        keys.append(("m.room.member", state_key))
    membership = content.get("membership")
    # … if it is a way into the room, on the join rules, …
    if membership in ("join", "invite", "knock"):
        keys.append(_JOIN_RULES)
    # … if it is an invite that a third party has signed, on the invitation with its token, …
    if membership == "invite":
        invite = content.get("third_party_invite")
        signed = invite.get("signed") if isinstance(invite, dict) else None
        token = signed.get("token") if isinstance(signed, dict) else None
        if isinstance(token, str):
            keys.append(("m.room.third_party_invite", token))
    # … and if it is a join that a member authorises, on the membership of that member.
    if membership == "join" and room_version.restricted_join_rule:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str) and ("m.room.member", authoriser) not in keys:
            keys.append(("m.room.member", authoriser))
    return keys
