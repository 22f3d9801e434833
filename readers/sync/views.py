"""What is asked of rooms and what was found, between the plan of an answer, the tables, and what renders it."""

from __future__ import annotations

from dataclasses import dataclass, field

from readers.bundles import Bundles
from readers.rooms.access import Course
from readers.sync.outputs import Output
from readers.sync.rooms import Receipt


@dataclass(slots=True)
class RoomAsk:
    """What is wanted of a room: its timeline in (`after`, `upto`], and the state the client lacks.

    The client has the state as of `known`; None: it has nothing. `joined_at` is where the user's present or last stay began.
    `fresh`: the user has joined since the client asked last, so that older history is a gap.
    """

    nid: int
    room_id: str
    shard: int
    after: int
    upto: int
    known: int | None
    joined_at: int | None
    fresh: bool = False
    left: bool = False
    receipts_after: int | None = 0
    """Position after which receipts are wanted; None: none."""


@dataclass(slots=True)
class RoomView:
    """What was found: the timeline with the user's membership (a word) at each event, the state, the rest."""

    ask: RoomAsk
    timeline: list[tuple[Output, str]] = field(default_factory=list)
    limited: bool = False
    prev_batch: int = 0
    state: list[Output] = field(default_factory=list)
    joined: int | None = None
    invited: int | None = None
    heroes: list[str] | None = None
    receipts: list[Receipt] = field(default_factory=list)
    bundles: Bundles | None = None
    """What is told with events of the timeline about those that relate to them."""


@dataclass(slots=True)
class History:
    """What decides on visibility in a room: the user's membership and the history visibility over time, on each line."""

    memberships: Course = field(default_factory=lambda: Course("leave"))
    visibilities: Course = field(default_factory=lambda: Course("shared"))
    bases: dict[int, int] = field(default_factory=lambda: {0: 0})
    joined_until: int = 0
