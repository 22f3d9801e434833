"""What needs other servers. Until this server speaks to them, the answer is a refusal that says so, never a pretence."""

from __future__ import annotations

from typing import Any

from matrix.errors import MatrixError, forbidden, not_found
from matrix.identifiers import server_name_of


def check_local_invitee(content: dict[str, Any], user_id: str, server_name: str) -> None:
    """M_FORBIDDEN when the content of a member event invites a user of another server."""
    if content.get("membership") == "invite":
        check_local_user(user_id, server_name)


def check_local_user(user_id: str, server_name: str) -> None:
    """M_FORBIDDEN when the user is of another server."""
    if server_name_of(user_id) != server_name:
        raise forbidden(f"This server cannot invite users of {server_name_of(user_id)}.")


def unknown_room(room_id: str, server_name: str) -> MatrixError:
    """The refusal of a room that is not known here."""
    elsewhere = server_name_of(room_id)
    if elsewhere and elsewhere != server_name:
        return not_found(f"This server is not in that room, and cannot reach {elsewhere}.")
    return not_found("There is no such room here.")
