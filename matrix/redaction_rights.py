"""Whether a redaction that is in a room takes effect on the event that it names.

From version 3 on the auth rules let almost any redaction in, and this decides what it does; servers show a redaction to
clients only when it applies. Source: "Handling redactions" of room versions 3 and newer.
"""

from __future__ import annotations

from matrix.auth_selection import StateMap
from matrix.events import Event
from matrix.power_levels import BadPowerLevel, PowerLevels

__all__ = ["redaction_applies"]


def redaction_applies(redaction: Event, target: Event, state: StateMap) -> bool:
    """Whether `redaction`, itself accepted, redacts `target`, given the room's state at the redaction."""
    if redaction.type != "m.room.redaction" or redaction.redacts != target.event_id:
        return False
    if redaction.room_id != target.room_id:
        return False
    if redaction.room_version.redactions_need_power:
        # Versions 1 and 2: rule 11 of their auth rules has decided.
        return True
    # Everybody may redact what their own server has sent, …
    if redaction.sender_server == target.sender_server:
        return True
    # … and who has the redact level anything.
    create = state.get(("m.room.create", ""))
    if create is None:
        return False
    levels = PowerLevels(create, state.get(("m.room.power_levels", "")))
    try:
        return levels.of_user(redaction.sender) >= levels.named("redact")
    except BadPowerLevel:
        return False
