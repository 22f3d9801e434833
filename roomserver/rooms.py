"""What the room server remembers of rooms between batches.

Invariant: a `Room` is what the database says as of the last committed batch plus the effects of the batch under way; when that
batch fails, the room is forgotten and read again. Absence in these caches means "not read yet", never "not there": keys known to
be absent are held as None.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from matrix.events import Event
from matrix.room_versions import RoomVersion

StateKey = tuple[str, str]

_NOTHING: dict[str, Any] = {}

# Events remembered per room: a chain names the last one, forks the last few.
KNOWN_EVENTS = 64
# Rooms remembered, and state entries over all of them (about 2 kB each).
MAX_ROOMS = 2_000
MAX_STATE = 12_000
# How many batches may pass between two looks at the latter.
LOOK_EVERY = 200


class Known(NamedTuple):
    """A judged event: its verdict, and the line and position that its state is found at."""

    entry: int
    verdict: str
    line: int
    position: int
    event: Event | None


class StateEvent(NamedTuple):
    """A state event with the entry that holds it."""

    entry: int
    event: Event


@dataclass(slots=True)
class Room:
    """A room's head and as much of its current state as has been asked for."""

    nid: int
    room_id: str
    version: RoomVersion
    extremities: set[str]
    depth: int
    position: int
    state_position: int
    judged_seq: int
    generation: int
    joined: int
    invited: int
    is_new: bool = False
    state: dict[StateKey, StateEvent | None] = field(default_factory=dict)
    known: OrderedDict[str, Known] = field(default_factory=OrderedDict)
    # Who may send which plain message under the state as of `state_position`, with the auth events it must then name.
    senders: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def remember(self, event_id: str, known: Known) -> None:
        """Adds a judged event; `trim` forgets the ones remembered longest.

        Nobody asks for a remembered event's PDU again, nor for a message's content, and they would be most of the memory.
        """
        event = known.event
        if event is not None:
            event.pdu = _NOTHING
            if event.state_key is None:
                event.content = _NOTHING
        self.known[event_id] = known

    def trim(self) -> None:
        """Keeps the bound on events; between batches, for a batch may need all that was read for it."""
        while len(self.known) > KNOWN_EVENTS:
            self.known.popitem(last=False)

    def is_current(self, known: Known) -> bool:
        """Whether the state after that event is the room's current state."""
        return known.line == 0 and known.position >= self.state_position


class Rooms:
    """The rooms remembered, least recently used first."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._batches = 0

    def get(self, room_id: str) -> Room | None:
        """The room if it is remembered."""
        room = self._rooms.get(room_id)
        if room is not None:
            self._rooms.move_to_end(room_id)
        return room

    def put(self, room: Room) -> None:
        """Remembers a room."""
        self._rooms[room.room_id] = room

    def forget(self, room_id: str) -> None:
        """Drops a room, so that it is read again."""
        self._rooms.pop(room_id, None)

    def clear(self) -> None:
        """Drops all."""
        self._rooms.clear()

    def shrink(self) -> None:
        """Keeps the bounds; between batches, for a batch may need all of its rooms."""
        self._batches += 1
        if self._batches % LOOK_EVERY and len(self._rooms) <= MAX_ROOMS:
            return
        state = sum(len(room.state) for room in self._rooms.values())
        while len(self._rooms) > MAX_ROOMS or (state > MAX_STATE and len(self._rooms) > 1):
            _, room = self._rooms.popitem(last=False)
            state -= len(room.state)

    def __len__(self) -> int:
        return len(self._rooms)
