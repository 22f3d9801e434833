"""What push rules ask of rooms beside the event, moved forward output by output.

Invariant: a room kept here is as of the last output that was handed to `move`; only preferences are those of now. What is
not certain is given up, and read again as of the output that asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.events import Event
from matrix.power_levels import PowerLevels
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from readers.follower import Judged
from readers.notifications.preferences import TYPES, Preferences

SQL: Final = Queries("readers.notifications", "notifications.sql")

MOST_ROOMS: Final = 2_000
_TYPES: Final = {"types": list(TYPES)}
POWER_LEVELS: Final = "m.room.power_levels"


@dataclass(slots=True)
class Room:
    """A room. `ruled` are the joined members with preferences of their own, with their display names there."""

    version: RoomVersion
    create: Event
    joined: int
    levels: PowerLevels
    ruled: dict[str, str | None] = field(default_factory=dict)
    untrimmed: int = 0
    """Notices since it was last trimmed."""


class Rooms:
    """The rooms in which something happened lately."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[int, Room] = OrderedDict()
        self._ruled: set[str] = set()

    async def begin(self, connection: AsyncConnection) -> None:
        """Forgets everything but who has preferences of their own, which it asks."""
        self._rooms.clear()
        self._ruled = {
            unsafe(user_id) for (user_id,) in await (await connection.execute(SQL["ruled"], _TYPES)).fetchall()
        }

    def get(self, nid: int) -> Room | None:
        """A room that is at hand."""
        return self._rooms.get(nid)

    def has_preferences(self, user_id: str) -> bool:
        """Whether a user has preferences of their own."""
        return user_id in self._ruled

    def preferences_changed(self, user_id: str) -> bool:
        """A user has changed their preferences. False: for the first time, so that all rooms have to be loaded again."""
        if user_id in self._ruled:
            return True
        self._ruled.add(user_id)
        self._rooms.clear()
        return False

    async def load(self, connection: AsyncConnection, at: Mapping[int, int]) -> None:
        """Brings rooms at hand as of positions, those that are not."""
        lacking = [nid for nid in at if nid not in self._rooms]
        if not lacking:
            return
        parameters = {"rooms": lacking, "at": [at[nid] for nid in lacking], **_TYPES}
        state: dict[int, dict[str, Event]] = {}
        joined: dict[int, int] = {}
        for i, version, count, kind, event_id, pdu in await (
            await connection.execute(SQL["bases"], parameters)
        ).fetchall():
            nid = lacking[i - 1]
            joined[nid] = count
            event = Event.from_pdu(orjson.loads(pdu), ROOM_VERSIONS[version], event_id)
            state.setdefault(nid, {})[kind] = event
        for nid, found in state.items():
            create = found.get("m.room.create")
            if create is not None:
                levels = PowerLevels(create, found.get(POWER_LEVELS))
                self._rooms[nid] = Room(create.room_version, create, joined[nid], levels)
        cursor = await connection.execute(SQL["ruled_members"], parameters)
        for nid, user_id, pdu in await cursor.fetchall():
            if (room := self._rooms.get(nid)) is not None:
                room.ruled[unsafe(user_id)] = _name(orjson.loads(pdu)["content"])

    def move(self, output: Judged, event: Event | None) -> bool:
        """Moves a room over one of its outputs; `event` is given for state events. False: it has to be loaded again."""
        nid = output.room
        room = None if nid is None else self._rooms.get(nid)
        if nid is None or room is None:
            return True
        self._rooms.move_to_end(nid)
        if "state" in output.notes:
            del self._rooms[nid]
            return False
        room.joined = output.notes.get("joined", room.joined)
        for user_id, new, _ in output.notes.get("members", ()):
            if new != "j":
                room.ruled.pop(user_id, None)
        if event is not None and output.notes.get("current"):
            if event.type == POWER_LEVELS and event.state_key == "":
                room.levels = PowerLevels(room.create, event)
            joins = event.type == "m.room.member" and event.content.get("membership") == "join"
            if joins and event.state_key in self._ruled:
                room.ruled[event.state_key] = _name(event.content)
        return True

    def shrink(self) -> None:
        """Forgets the rooms in which nothing happened for longest."""
        while len(self._rooms) > MOST_ROOMS:
            self._rooms.popitem(last=False)


def _name(content: Mapping[str, Any]) -> str | None:
    name = content.get("displayname")
    return name if isinstance(name, str) else None


async def read_preferences(connection: AsyncConnection, users: list[str]) -> dict[str, Preferences]:
    """The preferences of users; those of users who are not there have never been changed."""
    cursor = await connection.execute(SQL["rules"], {"users": [safe(user_id) for user_id in users], **_TYPES})
    contents: dict[str, dict[str, Any]] = {}
    for user_id, kind, content in await cursor.fetchall():
        contents.setdefault(unsafe(user_id), {})[kind] = orjson.loads(content)
    return {user_id: Preferences.parse(found) for user_id, found in contents.items()}
