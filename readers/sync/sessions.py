"""What a device has been told already: members it knows, typing that it saw begin.

Invariant: a member counts as known only after the client has come back with the token of the response that carried it. A
session that is not here knows nothing, and redundant member events are allowed ("Lazy-loading room members").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from operator import lt
from time import monotonic
from typing import Final

from eventlog.tokens import SyncToken

MOST_SESSIONS: Final = 20_000
MOST_ROOMS: Final = 100
"""Rooms per session whose told members are remembered."""
MOST_MEMBERS: Final = 200
"""Members per room and session that are remembered."""


class Session:
    """One device's memory."""

    __slots__ = ("_answered_at", "_known", "_latest", "_pending", "_since", "_token", "answered_at", "first_message")

    def __init__(self) -> None:
        self._known: OrderedDict[int, set[str]] = OrderedDict()
        self._pending: dict[int, set[str]] = {}
        self._token = ""
        self._since = ""
        self._latest = ""
        """Where the last response led to, whether or not it arrived."""
        self._answered_at = 0.0
        self.answered_at = 0.0
        """time.monotonic() of the response that led to where the client is, as far as this process knows; 0.0 if it does not."""
        self.first_message: tuple[int, int] | None = None
        """Shard and position of the first message to the device that was told from the table and is not known to have arrived."""

    def begin(self, since: str) -> None:
        """A request has come: what the last response told is known, unless it never arrived.

        Who comes back to an older place than that has lost what was told since, or is another client of the same device.
        """
        if since and since == self._token:
            for nid, users in self._pending.items():
                known = self._known.setdefault(nid, set())
                if len(known) + len(users) > MOST_MEMBERS:
                    known.clear()
                known |= users
                self._known.move_to_end(nid)
                if len(self._known) > MOST_ROOMS:
                    self._known.popitem(last=False)
            self.answered_at = self._answered_at
        elif not since or _is_older(since, self._latest):
            # Not older is who has been answered by another process meanwhile. The same again is who was not answered.
            if since != self._since or not since:
                self._known.clear()
                self.answered_at = 0.0
        else:
            self.answered_at = self._answered_at
        self._since = since
        self._pending = {}
        self._token = ""

    def forget(self) -> None:
        """What the device has been told belongs to an abandoned future."""
        self._known.clear()

    def unknown(self, nid: int, users: Iterable[str]) -> set[str]:
        """Those of some users whose member events this device has not been told in a room."""
        known = self._known.get(nid)
        return set(users) if known is None else set(users) - known

    def answer(self, token: str, told: dict[int, set[str]] | None = None) -> None:
        """The response goes out, with this token; `told` are the members that it tells, by room."""
        self._token = self._latest = token
        self._pending = told or {}
        self._answered_at = monotonic()


def _is_older(since: str, latest: str) -> bool:
    """Whether a token is of an earlier place than another one, as far as they can be compared."""
    try:
        one, other = SyncToken.parse(since), SyncToken.parse(latest)
    except ValueError:
        return False
    return one.epoch == other.epoch and any(map(lt, one.positions, other.positions))


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
