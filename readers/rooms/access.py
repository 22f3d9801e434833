"""Who may read what of a room: memberships and history visibility over time, asked once per request.

Invariant: what is not known to be visible is not shown. The setting and the membership that count are those in the state before
the event, on the event's own state line. Source: client-server API, "Room History Visibility", and the 403 of each endpoint.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import orjson

from matrix.errors import MatrixError, forbidden
from matrix.events import Event
from matrix.ignored_users import ignored_users
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.visibility import is_visible, user_may_see
from readers.rendering import MEMBERSHIPS

NOW: Final = 9_223_372_036_854_775_807
"""The position after all others: `valid_to` of what stands."""

START: Final = -NOW
"""The order before all others."""

_VISIBILITIES: Final = frozenset(("world_readable", "shared", "invited", "joined"))


class Span(NamedTuple):
    """A part of a room's timeline in which a user sees events: `after < order <= upto`."""

    room: int
    after: int = START
    upto: int = NOW


class Placed(Protocol):
    """An event with its place in the timeline and in the state over time."""

    timeline: int
    position: int
    line: int
    type: str
    state_key: str | None
    sender: str

    def event(self, version: RoomVersion) -> Event:
        """The event parsed."""


class Course:
    """One state key's value over time, on every line of a room. `absent` is its value where the room has none."""

    __slots__ = ("_absent", "_lines")

    def __init__(self, absent: str) -> None:
        self._absent = absent
        self._lines: dict[int, tuple[list[int], list[int], list[str]]] = {}

    def add(self, line: int, since: int, until: int, value: str) -> None:
        """The value for `since <= position < until`; to be added in order of time."""
        starts, ends, values = self._lines.setdefault(line, ([], [], []))
        starts.append(since)
        ends.append(until)
        values.append(value)

    def after(self, position: int, line: int = 0, base: int = 0) -> str:
        """The value in the state after a position on a line that forked from the main line at `base`."""
        found = self._lines.get(line)
        if found is not None:
            at = bisect_right(found[0], position) - 1
            if at >= 0 and position < found[1][at]:
                return found[2][at]
        return self.after(base) if line else self._absent

    def constant(self, first: int, last: int) -> str | None:
        """The value if it is one and the same on the main line in the states after `first` to `last`; otherwise None."""
        found = self._lines.get(0)
        if found is None:
            return self._absent
        at = bisect_right(found[0], first) - 1
        return found[2][at] if at >= 0 and last < found[1][at] else None

    def turns(self) -> list[int]:
        """Every position at which the main line's value changes."""
        starts, ends, _ = self._lines.get(0, ([], [], []))
        return sorted({*starts, *ends})

    def end_of_last(self, value: str) -> int:
        """Where the value last ceased on the main line; NOW while it stands, 0 if it never was."""
        _, ends, values = self._lines.get(0, ([], [], []))
        return max((end for end, is_value in zip(ends, values, strict=True) if is_value == value), default=0)


class Access:
    """What one user may read of one room. `bases` are the positions that the lines looked at forked from."""

    def __init__(self, user_id: str, room_id: str, rows: Sequence[Sequence[Any]]) -> None:
        """From the rows of the query `access`. M_FORBIDDEN if there is no such room: nobody learns which there are."""
        if not rows:
            raise not_a_member()
        self.user_id = user_id
        self.room_id = room_id
        nid, version, shard, forgotten, ignored = rows[0][:5]
        self.nid: int = nid
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self.shard: int = shard
        self.ignored: frozenset[str] = ignored_users(None if ignored is None else orjson.loads(ignored))
        self.bases: dict[int, int] = {0: 0}
        self._memberships = Course("leave")
        self._visibilities = Course("shared")
        for _, _, _, _, _, of_member, line, since, until, value in sorted(
            (row for row in rows if row[5] is not None), key=lambda row: (row[6], row[7])
        ):
            if of_member:
                self._memberships.add(line, since, until, MEMBERSHIPS.get(value, "leave"))
            else:
                self._visibilities.add(line, since, until, _visibility_of(value))
        self._forgotten: bool = forgotten is True
        # "After this API is called, a user will no longer be able to retrieve history for this room."
        self._stays = Course("leave") if self._forgotten else self._memberships
        self.joined_until: int = self._stays.end_of_last("join")
        self.is_joined: bool = self.joined_until == NOW
        self.has_left: bool = 0 < self.joined_until < NOW

    def reads_at(self) -> int:
        """The position whose state the user reads as the room's: NOW, or that of their last leave.

        "If the user has left the room then this will be the state of the room when they left." Raises M_FORBIDDEN for
        others, unless the room is world-readable now.
        """
        if self.is_joined:
            return NOW
        if self.has_left:
            return self.joined_until
        if self._visibilities.after(NOW - 1) == "world_readable":
            return NOW
        raise not_a_member()

    @property
    def membership(self) -> str:
        """The user's membership now."""
        return self._memberships.after(NOW - 1)

    def membership_after(self, placed: Placed) -> str:
        """The user's membership in the state after an event, for `unsigned.membership`."""
        return self._memberships.after(placed.position, placed.line, self.bases.get(placed.line, 0))

    def sees_all(self, first: int, last: int) -> bool:
        """Whether the user was joined from before the event at one position of the main line to after that at a later one."""
        return self._stays.constant(first - 1, last) == "join"

    def sees(self, placed: Placed) -> bool:
        """Whether the user may see an event."""
        base = self.bases.get(placed.line)
        if base is None:
            return False
        visibility = self._visibilities.after(placed.position - 1, placed.line, base)
        membership = self._stays.after(placed.position - 1, placed.line, base)
        joined_since = placed.timeline < self.joined_until
        if is_visible(visibility, membership, joined_since=joined_since):
            return True
        if placed.state_key is None or self._forgotten:
            return False
        return user_may_see(
            placed.event(self.version),
            self.user_id,
            visibility=visibility,
            membership=membership,
            joined_since=joined_since,
        )

    def sees_state_after(self, position: int) -> bool:
        """Whether the user may know the state after a position: an event that followed it would be shown."""
        return self.is_joined or self._is_open(position)

    def next_open(self, place: int, *, backwards: bool) -> int | None:
        """The next place in the timeline, from a place on, beyond which the user may see events; None if there is none.

        Looks at the main line alone: it says where to look next once nothing more was seen. Backfilled history (orders up
        to 0) always counts as open.
        """
        turns = [START, *sorted({0, *self._memberships.turns(), *self._visibilities.turns()} - {NOW}), NOW]
        stretches = list(pairwise(turns))
        if backwards:
            for begin, end in reversed(stretches):
                # The state before an event at a turn is the stretch's before it, and what the event changes may show it:
                # it belongs to both.
                if begin <= place and (begin < 0 or self._is_open(begin)):
                    return min(place, end)
            return None
        for begin, end in stretches:
            if end > place and (begin < 0 or self._is_open(begin)):
                return max(place, begin - 1)
        return None

    def spans(self, first: int) -> list[Span] | None:
        """Where the user sees what relates to events from a place in the timeline on; None: wherever there is anything.

        None is for those who have been there all the time: what relates to an event comes after it.
        """
        if first > 0 and self.sees_all(first, NOW - 1):
            return None
        return open_spans(self.nid, self._stays, self._visibilities, self.joined_until)

    def _is_open(self, position: int) -> bool:
        """Whether an event right after a position of the main line is visible."""
        return is_visible(
            self._visibilities.after(position),
            self._stays.after(position),
            joined_since=position < self.joined_until,
        )


def open_spans(room: int, memberships: Course, visibilities: Course, joined_until: int, upto: int = NOW) -> list[Span]:
    """The stretches of a room's main line, up to a position, whose events are visible to a user; backfilled history always is."""
    turns = sorted({0, *memberships.turns(), *visibilities.turns(), NOW})
    spans = [Span(room, START, 0)]
    for begin, end in pairwise([turn for turn in turns if turn >= 0]):
        if begin >= upto:
            break
        if is_visible(visibilities.after(begin), memberships.after(begin), joined_since=begin < joined_until):
            last = spans[-1]
            if last.upto == begin:
                spans[-1] = Span(room, last.after, min(end, upto))
            else:
                spans.append(Span(room, begin, min(end, upto)))
    return spans


def not_a_member() -> MatrixError:
    """The refusal of rooms that the user is not in, or that do not exist."""
    return forbidden("You are not a member of the room.")


def lines_of(rows: Iterable[Placed], access: Access) -> list[int]:
    """The lines among some events whose fork is not known yet."""
    return sorted({row.line for row in rows} - access.bases.keys())


def _visibility_of(pdu: str | None) -> str:
    # "By default if no history_visibility is set, or if the value is not understood, the visibility is assumed to be shared."
    if pdu is None:
        return "shared"
    value = orjson.loads(pdu)["content"].get("history_visibility")
    return value if isinstance(value, str) and value in _VISIBILITIES else "shared"
