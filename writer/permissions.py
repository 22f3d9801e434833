"""What a user may do in a room beyond what the auth rules decide on events: the server's own questions of power levels."""

from __future__ import annotations

from collections.abc import Callable

from matrix.errors import MatrixError
from matrix.events import Event
from matrix.power_levels import BadPowerLevel, PowerLevels
from writer.views import RoomView, StateKey

CREATE: StateKey = ("m.room.create", "")
LEVELS: StateKey = ("m.room.power_levels", "")

POWER_KEYS: tuple[StateKey, ...] = (CREATE, LEVELS)
"""The state to ask for before asking anything here."""


_Required = Callable[[PowerLevels], int]


def _levels(view: RoomView) -> PowerLevels | None:
    create = view.state.get(CREATE)
    return None if create is None else PowerLevels(create, view.state.get(LEVELS))


def may_redact_others(view: RoomView, user_id: str) -> bool:
    """Whether the user has the level to redact what others have sent."""
    return _reaches(view, user_id, lambda levels: levels.named("redact"))


def may_invite(view: RoomView, user_id: str) -> bool:
    """Whether the user has the level to invite."""
    return _reaches(view, user_id, lambda levels: levels.named("invite"))


def may_set_state(view: RoomView, user_id: str, event_type: str) -> bool:
    """Whether the user has the level to send state events of the type."""
    return _reaches(view, user_id, lambda levels: levels.to_send(event_type, is_state=True))


def _reaches(view: RoomView, user_id: str, required: _Required) -> bool:
    levels = _levels(view)
    if levels is None:
        return False
    try:
        return levels.of_user(user_id) >= required(levels)
    except BadPowerLevel:
        return False


def membership_of(event: Event | None) -> str:
    """The membership a member event gives; "leave" when there is none."""
    membership = None if event is None else event.content.get("membership")
    return membership if isinstance(membership, str) else "leave"


def check_may_leave(member: Event | None, notices_id: str) -> None:
    """M_CANNOT_LEAVE_SERVER_NOTICE_ROOM for who is invited by the user that server notices come from."""
    if member is not None and membership_of(member) == "invite" and member.sender == notices_id:
        raise MatrixError(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "You cannot reject this invite.")
