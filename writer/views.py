"""Rooms as a writer sees them: the head to build on and the state that auth asks for.

Invariant: a view may be old, and then the append says so; it is never a reason to refuse a request, which is only refused on a
view read after the request came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
from psycopg import AsyncConnection

from eventlog.append import RoomSeen
from eventlog.queries import Queries
from eventlog.safe_text import safe
from matrix.events import Event
from matrix.hashes import reference_hash
from matrix.redaction import redact_content
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.unpadded_base64 import encode as encode_base64

SQL = Queries("writer", "views.sql")

MAX_VIEWS = 2_000
MAX_PREV_EVENTS = 20

StateKey = tuple[str, str]

_SURVIVING = frozenset(("m.room.create", "m.room.power_levels"))


@dataclass(slots=True)
class RoomView:
    """A room to build on. `previous` are the events that the next one follows, `depth` is the greatest among them."""

    room_id: str
    nid: int
    room_version: RoomVersion
    previous: list[str]
    depth: int
    tip: str | None
    state_position: int | None
    generation: int | None
    joined: int
    invited: int
    # An unjudged state event at the tip: nothing may be built on it but by the process that appended it.
    unsettled: bool
    # More than one extremity, to be merged by an event built on a settled tip.
    forked: bool
    state: dict[StateKey, Event | None] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def seen(self) -> RoomSeen:
        """What the append compares with the room as it then is."""
        return RoomSeen(self.room_id, self.tip, self.state_position, self.generation)

    def same_as(self, other: RoomView) -> bool:
        """Whether both were read of one moment of the room."""
        return (self.tip, self.state_position, self.generation) == (other.tip, other.state_position, other.generation)


class Views:
    """The views this process keeps, least recently used first."""

    def __init__(self) -> None:
        self._views: OrderedDict[str, RoomView] = OrderedDict()

    def get(self, room_id: str) -> RoomView | None:
        """The view kept of a room."""
        view = self._views.get(room_id)
        if view is not None:
            self._views.move_to_end(room_id)
        return view

    def put(self, view: RoomView) -> None:
        """Keeps a view."""
        self._views[view.room_id] = view
        if len(self._views) > MAX_VIEWS:
            self._views.popitem(last=False)

    def drop(self, room_id: str) -> None:
        """Forgets a room, so that it is read again."""
        self._views.pop(room_id, None)


async def read_views(connection: AsyncConnection, asked: Mapping[str, Iterable[StateKey]]) -> dict[str, RoomView]:
    """Reads rooms with the state keys asked, all of one moment; unknown rooms are left out."""
    keys = {room_id: list(dict.fromkeys(wanted)) for room_id, wanted in asked.items()}
    body = [
        {"room_id": room_id, "keys": [[safe(kind), safe(key)] for kind, key in wanted]}
        for room_id, wanted in keys.items()
    ]
    cursor = await connection.execute(SQL["views"], {"asked": orjson.dumps(body).decode()})
    views: dict[str, RoomView] = {}
    for row in await cursor.fetchall():
        (room_id, nid, version_name, extremities, depth, state_position, judged_seq, generation, joined, invited) = row[
            :10
        ]
        tip, tip_depth, tip_seq, tip_state_seq, tip_generation, state = row[10:]
        version = ROOM_VERSIONS[version_name]
        # The tip stands at the end of the chain unless the chain broke; once judged, it is among the extremities or behind.
        unjudged = tip is not None and tip_generation == generation and tip_seq > judged_seq
        view = RoomView(
            room_id=room_id,
            nid=nid,
            room_version=version,
            previous=[tip] if unjudged else list(extremities)[:MAX_PREV_EVENTS],
            depth=tip_depth if unjudged else depth,
            tip=tip,
            state_position=state_position,
            generation=generation,
            joined=joined,
            invited=invited,
            unsettled=tip is not None and tip_state_seq > judged_seq,
            forked=len(extremities) > 1,
            state=dict.fromkeys(keys[room_id]),
        )
        for event_id, pdu in orjson.loads(state) if state else ():
            event = Event.from_pdu(pdu, version, event_id)
            if not version.references_carry_hashes:
                event.pdu = {}
            view.state[event.type, event.state_key or ""] = event
        views[room_id] = view
        if version.references_carry_hashes:
            await _read_hashes(connection, view)
    return views


async def redact_view(connection: AsyncConnection, view: RoomView) -> None:
    """Takes out of a view what redactions have taken out of the room; not for building on, where auth sees events as they were."""
    # Of these all that anybody asks for survives.
    stated = [event for (kind, _), event in view.state.items() if event is not None and kind not in _SURVIVING]
    if not stated:
        return
    cursor = await connection.execute(SQL["redacted"], {"event_ids": [event.event_id for event in stated]})
    redacted = {event_id for (event_id,) in await cursor.fetchall()}
    for event in stated:
        if event.event_id in redacted:
            event.content = redact_content(event.type, event.content, view.room_version)


async def _read_hashes(connection: AsyncConnection, view: RoomView) -> None:
    """Versions 1 and 2 name previous events together with their hashes."""
    cursor = await connection.execute(SQL["events"], {"event_ids": view.previous})
    for event_id, pdu in await cursor.fetchall():
        view.hashes[event_id] = encode_base64(reference_hash(orjson.loads(pdu), view.room_version))
