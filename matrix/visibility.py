"""Who may see an event: history visibility as a pure function of the room at the event.

The setting that counts is the one in force when the event was sent, so nobody can show or hide history afterwards.
Source: client-server API, "Room History Visibility".
"""

from __future__ import annotations

from collections.abc import Collection

from matrix.events import Event

__all__ = [
    "history_visibility_of",
    "is_content_withheld",
    "is_visible",
    "server_may_see",
    "user_may_see",
]

_VALUES = frozenset(("world_readable", "shared", "invited", "joined"))


def history_visibility_of(event: Event | None) -> str:
    """The setting that an m.room.history_visibility event makes; `shared` if there is none or it is not understood."""
    value = None if event is None else event.content.get("history_visibility")
    return value if isinstance(value, str) and value in _VALUES else "shared"


def is_visible(visibility: str, membership: str, *, joined_since: bool) -> bool:
    """The specification's table, for one visibility and one membership at an event.

    `joined_since`: whether the user has been joined at any point after the event.
    """
    # 1. What was open to the world stays so.
    # 2. Members see what happens while they are there, …
    if visibility == "world_readable" or membership == "join":
        return True
    # 3. … where history is shared also what happened before, …
    if visibility == "shared":
        return joined_since
    # 4. … and where the invited see it, what happened since they were invited.
    return visibility == "invited" and membership == "invite"


def user_may_see(event: Event, user_id: str, *, visibility: str, membership: str, joined_since: bool) -> bool:
    """Whether a user may see an event.

    `visibility` (of `history_visibility_of`) and `membership` (`leave` if none) are those before the event;
    `joined_since` as in `is_visible`. What the event itself changes is read from it.
    """
    if is_visible(visibility, membership, joined_since=joined_since):
        return True
    if not event.is_state:
        return False
    # A change of the setting is visible if it would be on either side of it.
    if event.type == "m.room.history_visibility" and event.state_key == "":
        return is_visible(history_visibility_of(event), membership, joined_since=joined_since)
    # So is a change of the user's own membership.
    if event.type == "m.room.member" and event.state_key == user_id:
        after = event.content.get("membership")
        return isinstance(after, str) and is_visible(visibility, after, joined_since=joined_since)
    return False


def server_may_see(visibility: str, memberships: Collection[str]) -> bool:
    """Whether a server that takes part in the room may be given an event in full; otherwise it gets it redacted.

    `memberships`: those of the server's users at the event. It applies the rules to its users itself, so what any of
    them may see, now or after joining, it needs.
    """
    if visibility in ("world_readable", "shared") or "join" in memberships:
        return True
    return visibility == "invited" and "invite" in memberships


def is_content_withheld(*, sender_is_erased: bool, membership: str) -> bool:
    """Whether a visible event is to be served redacted: its sender asked to be forgotten, and the user was not there.

    Source: client-server API, "POST /account/deactivate", `erase`: who could see the messages already still can, users
    who join later get redacted copies.
    """
    return sender_is_erased and membership != "join"
