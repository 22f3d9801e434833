"""What has happened in rooms lately: per room the newest timeline entries, receipts and typing.

Invariant: these caches may only say yes. A room says of itself from which position on it has everything (`floor`), and of a
room that is not here nothing has happened since `Rooms.floors`; whatever is asked from before that is read from the tables.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import time
from typing import Any, Final, NamedTuple

from readers.sync.members import Members
from readers.sync.notifications import RoomBasis
from readers.sync.outputs import Output

MOST_ENTRIES: Final = 100
"""Timeline entries kept per room."""
MOST_RECEIPTS: Final = 400
"""Receipts kept per room."""
MOST_FRAGMENTS: Final = 32
"""Rendered deltas kept per room."""
ROOM_BYTES: Final = 3_000
"""What a room costs beside its entries, about."""


class Receipt(NamedTuple):
    """A receipt as an output brought it; `thread_id` is empty when unthreaded, `ts` milliseconds since 1970."""

    position: int
    user_id: str
    receipt_type: str
    thread_id: str
    event_id: str
    ts: int


@dataclass(slots=True)
class Typing:
    """Who types: user id → until when (milliseconds since 1970). `changed` is the position of the last notice."""

    until: dict[str, int]
    changed: int = 0
    expired_at: float = 0.0
    """time.monotonic() when somebody's notice last ran out by itself."""

    def users(self) -> list[str]:
        """Who types at this moment."""
        now = time() * 1000
        return [user_id for user_id, until in self.until.items() if until > now]


class Room:
    """One room's recent past, complete after `floor` (timeline) and `receipts_floor`."""

    __slots__ = (
        "basis",
        "bytes",
        "entries",
        "floor",
        "fragments",
        "last",
        "members",
        "nid",
        "receipts",
        "receipts_floor",
        "room_id",
        "shard",
        "typing",
    )

    def __init__(self, nid: int, room_id: str, shard: int, floor: int) -> None:
        self.nid = nid
        self.room_id = room_id
        self.shard = shard
        self.basis: RoomBasis | None = None
        """What push rules ask of the room, once somebody has asked."""
        self.floor = floor
        self.receipts_floor = floor
        self.last = floor
        self.entries: deque[Output] = deque()
        self.receipts: deque[Receipt] = deque()
        self.typing: Typing | None = None
        self.members = Members()
        self.bytes = ROOM_BYTES
        self.fragments: dict[Any, bytes] = {}

    def add(self, output: Output) -> None:
        """Appends a timeline entry and lets the oldest go."""
        self.entries.append(output)
        self.bytes += output.size
        if len(self.entries) > MOST_ENTRIES:
            oldest = self.entries.popleft()
            self.bytes -= oldest.size
            self.floor = oldest.position
        if self.fragments:
            self.fragments = {}

    def add_receipt(self, receipt: Receipt) -> None:
        """Appends a receipt and lets the oldest go."""
        self.receipts.append(receipt)
        self.bytes += 300
        if len(self.receipts) > MOST_RECEIPTS:
            self.receipts_floor = self.receipts.popleft().position
            self.bytes -= 300

    def after(self, position: int) -> list[Output] | None:
        """The timeline entries after a position; None when some of them may be gone."""
        if position < self.floor:
            return None
        found: list[Output] = []
        for output in reversed(self.entries):
            if output.position <= position:
                break
            found.append(output)
        found.reverse()
        return found

    def newest(self, after: int, upto: int, most: int) -> list[Output] | None:
        """The newest timeline entries of a span, newest first; None when some of them may be gone."""
        found: list[Output] = []
        for output in reversed(self.entries):
            if output.position <= after or len(found) == most:
                return found
            if output.position <= upto:
                found.append(output)
        if len(found) == most or after >= self.floor or (self.entries and self.entries[0].type == "m.room.create"):
            return found
        return None

    def receipts_after(self, position: int) -> list[Receipt] | None:
        """The receipts after a position; None when some of them may be gone."""
        if position < self.receipts_floor:
            return None
        found: list[Receipt] = []
        for receipt in reversed(self.receipts):
            if receipt.position <= position:
                break
            found.append(receipt)
        found.reverse()
        return found

    def forget_entries(self, position: int) -> None:
        """Drops what is rendered or kept of the timeline: it is read from the tables from now on."""
        self.bytes -= sum(output.size for output in self.entries)
        self.entries.clear()
        self.fragments = {}
        self.floor = position


class Rooms:
    """Rooms by number, the one in which something happened last at the end; bounded by `most_bytes`."""

    def __init__(self, positions: list[int], most_bytes: int = 16 << 20) -> None:
        self.floors = list(positions)
        """Per shard: in a room that is not here nothing has happened after this position."""
        self._rooms: OrderedDict[int, Room] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def get(self, nid: int) -> Room | None:
        """The room if anything happened in it since `floors`."""
        return self._rooms.get(nid)

    def touch(self, nid: int, room_id: str, shard: int, position: int) -> Room:
        """The room in which something happens at this position; it is made if it is not here."""
        room = self._rooms.get(nid)
        if room is None:
            # Nothing happened in it between the floor and now, or it would be here.
            room = self._rooms[nid] = Room(nid, room_id, shard, self.floors[shard])
            self._bytes += room.bytes
        else:
            self._rooms.move_to_end(nid)
        room.last = position
        return room

    def add(self, room: Room, output: Output) -> None:
        """Appends a timeline entry."""
        before = room.bytes
        room.add(output)
        self._bytes += room.bytes - before

    def add_receipt(self, room: Room, receipt: Receipt) -> None:
        """Appends a receipt."""
        before = room.bytes
        room.add_receipt(receipt)
        self._bytes += room.bytes - before

    def forget_entries(self, room: Room, position: int) -> None:
        """Drops a room's timeline."""
        before = room.bytes
        room.forget_entries(position)
        self._bytes += room.bytes - before

    def shrink(self) -> None:
        """Lets rooms go in which nothing happened for longest, until the rest fits."""
        while self._bytes > self._most_bytes and len(self._rooms) > 1:
            _, room = self._rooms.popitem(last=False)
            self._bytes -= room.bytes
            self.floors[room.shard] = max(self.floors[room.shard], room.last)
