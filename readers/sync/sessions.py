"""What a device has been told already: members it knows, typing that it saw begin.

Invariant: a member counts as known only after the client has come back with the token of the response that carried it. A
session that is not here knows nothing, and redundant member events are allowed ("Lazy-loading room members").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic
from typing import Final

MOST_SESSIONS: Final = 20_000
MOST_ROOMS: Final = 100
"""Rooms per session whose told members are remembered."""
MOST_MEMBERS: Final = 200
"""Members per room and session that are remembered."""


class Session:
    """One device's memory."""

    __slots__ = ("_known", "_pending", "_token", "answered_at", "first_message")

    def __init__(self) -> None:
        self._known: OrderedDict[int, set[str]] = OrderedDict()
        self._pending: dict[int, set[str]] = {}
        self._token = ""
        self.answered_at = 0.0
        """time.monotonic() of the response before the present request."""
        self.first_message: tuple[int, int] | None = None
        """Shard and position of the first message to the device that was told from the table and is not known to have arrived."""

    def begin(self, since: str) -> None:
        """A request has come: what the last response told is known, unless it never arrived."""
        if since and since == self._token:
            for nid, users in self._pending.items():
                known = self._known.setdefault(nid, set())
                if len(known) + len(users) > MOST_MEMBERS:
                    known.clear()
                known |= users
                self._known.move_to_end(nid)
                if len(self._known) > MOST_ROOMS:
                    self._known.popitem(last=False)
        elif not since:
            self._known.clear()
        self._pending = {}
        self._token = ""

    def again(self) -> None:
        """The response under way is made anew: it has told nothing yet."""
        self._pending = {}

    def forget(self) -> None:
        """What the device has been told belongs to an abandoned future."""
        self._known.clear()

    def unknown(self, nid: int, users: Iterable[str]) -> set[str]:
        """Those of some users whose member events this device has not been told in a room."""
        known = self._known.get(nid)
        return set(users) if known is None else set(users) - known

    def told(self, nid: int, users: Iterable[str]) -> None:
        """Notes members that the response under way tells."""
        self._pending.setdefault(nid, set()).update(users)

    def answer(self, token: str) -> None:
        """The response goes out, with this token."""
        self._token = token
        self.answered_at = monotonic()


class Sessions:
    """Sessions by user and device; bounded."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def of(self, user_id: str, device_id: str) -> Session:
        """The device's session, a new one if it is not remembered."""
        key = (user_id, device_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session()
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(key)
        return session
