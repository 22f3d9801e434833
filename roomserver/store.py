"""Everything the room server reads: what a batch needs, in as few queries as it has kinds of questions.

Invariant: `prepare` leaves nothing for `judge` to look up on the main line; a batch that touches only remembered rooms and keys
asks the database nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.auth_rules import auth_event_keys
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from roomserver.entries import Entry
from roomserver.rooms import Known, Room, Rooms, StateEvent, StateKey

SQL = Queries("roomserver", "roomserver.sql")

CREATE: StateKey = ("m.room.create", "")

MOST_ROOMS_TOLD = 1_000
"""Rooms in which a change of presence is told: those that the user joined last."""


@dataclass(slots=True)
class Item:
    """An entry made ready: its event and room, or the object of a user's entry."""

    entry: Entry
    room: Room | None = None
    event: Event | None = None
    keys: list[StateKey] = field(default_factory=list)
    body: dict[str, Any] | None = None


@dataclass(slots=True)
class Found:
    """An event read from the log. `verdict` is None while it is unjudged."""

    entry: int
    verdict: str | None
    line: int
    position: int
    timeline: int | None
    event: Event


class Early(NamedTuple):
    """An accepted redaction of an event that is not known yet."""

    entry: int
    redaction: Event


class Store:
    """Reads through one connection, into the rooms remembered."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._numbers: list[int] = []
        self.early: dict[str, list[Early]] = {}
        """By the event they name, the redactions that came before it, of the events of this batch."""
        self.elsewhere: set[tuple[str, str]] = set()
        """(room id, event id): what events of this batch name that is of another room."""
        # What user entries of this batch collide with, read by `prepare`.
        self.receipts: dict[tuple[int, str, str, str], int | None] = {}
        self.timelines: dict[str, tuple[int | None, int | None]] = {}
        self.aliases: dict[str, str] = {}
        self.standing: dict[tuple[int, str], str] = {}
        self.presences: dict[str, dict[str, Any]] = {}
        self.rooms_of: dict[str, list[int]] = {}

    async def prepare(self, connection: AsyncConnection, entries: Sequence[Entry]) -> list[Item]:
        """Parses entries and reads every room, state key and event that judging them on the main line asks for."""
        await self.load_rooms(connection, {e.room_id for e in entries if e.room_id is not None})
        items: list[Item] = []
        begun: dict[str, RoomVersion] = {}
        for entry in entries:
            item = Item(entry)
            items.append(item)
            body = orjson.loads(entry.json)
            if entry.kind == "u":
                item.body = body
                item.room = None if entry.room_id is None else self.rooms.get(entry.room_id)
                continue
            assert entry.room_id is not None
            item.room = self.rooms.get(entry.room_id)
            version = item.room.version if item.room is not None else begun.get(entry.room_id)
            if version is None and entry.type == CREATE[0]:
                content = body.get("content")
                named = content.get("room_version", "1") if isinstance(content, dict) else "1"
                version = ROOM_VERSIONS.get(named) if isinstance(named, str) else None
                if version is not None:
                    begun[entry.room_id] = version
            if version is None:
                continue
            item.event = event = Event.from_pdu(body, version, entry.event_id)
            item.keys = auth_event_keys(event.type, event.sender, event.state_key, event.content, version)
            if not version.create_event_in_auth_events:
                item.keys.append(CREATE)
        await self._load_state(connection, items)
        await self._load_known(connection, items)
        await self._load_early(connection, items)
        await self._load_user_facts(connection, items)
        if begun:
            await self._take_numbers(connection, len(begun))
        return items

    def number(self) -> int:
        """A number for a new room; `prepare` has taken enough of them."""
        return self._numbers.pop(0)

    async def load_rooms(self, connection: AsyncConnection, room_ids: Iterable[str]) -> None:
        """Remembers the rooms that exist among these."""
        missing = [room_id for room_id in room_ids if self.rooms.get(room_id) is None]
        if not missing:
            return
        cursor = await connection.execute(SQL["rooms"], {"room_ids": missing})
        for row in await cursor.fetchall():
            room_id, nid, version, extremities, depth, position, state_position, seq, generation, joined, invited = row
            self.rooms.put(
                Room(
                    nid=nid,
                    room_id=room_id,
                    version=ROOM_VERSIONS[version],
                    extremities=set(extremities),
                    depth=depth,
                    position=position,
                    state_position=state_position,
                    judged_seq=seq,
                    generation=generation,
                    joined=joined,
                    invited=invited,
                )
            )

    async def _load_state(self, connection: AsyncConnection, items: Iterable[Item]) -> None:
        wanted: dict[tuple[int, StateKey], Room] = {}
        for item in items:
            room, event = item.room, item.event
            if room is None or event is None:
                continue
            for key in item.keys:
                if key not in room.state:
                    wanted[room.nid, key] = room
            if event.state_key is not None and (key := (event.type, event.state_key)) not in room.state:
                wanted[room.nid, key] = room
        if not wanted:
            return
        asked = list(wanted)
        cursor = await connection.execute(
            SQL["state"],
            {
                "rooms": [nid for nid, _ in asked],
                "types": [safe(key[0]) for _, key in asked],
                "keys": [safe(key[1]) for _, key in asked],
            },
        )
        for (_, key), room in wanted.items():
            room.state[key] = None
        for nid, kind, state_key, entry, event_id, pdu in await cursor.fetchall():
            key = (unsafe(kind), unsafe(state_key))
            room = wanted[nid, key]
            event = Event.from_pdu(orjson.loads(pdu), room.version, event_id)
            event.pdu = {}
            room.state[key] = StateEvent(entry, event)

    async def _load_known(self, connection: AsyncConnection, items: Sequence[Item]) -> None:
        ours = {item.entry.event_id for item in items}
        wanted: dict[str, list[Room]] = {}
        for item in items:
            room, event = item.room, item.event
            if room is None or event is None:
                continue
            # What an event of another server rests on need not be part of the current state.
            current = {found.event.event_id for key in item.keys if (found := room.state.get(key)) is not None}
            named = [*event.prev_events, *(event_id for event_id in event.auth_events if event_id not in current)]
            if event.redacts is not None:
                named.append(event.redacts)
            for event_id in named:
                if event_id not in room.known and event_id not in ours:
                    wanted.setdefault(event_id, []).append(room)
        self.elsewhere = set()
        if not wanted:
            return
        for event_id, one in (await self.events(connection, wanted)).items():
            for room in wanted[event_id]:
                if one is None or one.event.room_id != room.room_id:
                    self.elsewhere.add((room.room_id, event_id))
                elif one.verdict is not None:
                    room.remember(event_id, Known(one.entry, one.verdict, one.line, one.position, one.event))

    async def _load_early(self, connection: AsyncConnection, items: Iterable[Item]) -> None:
        self.early = {}
        # What this server builds has no id before it is built.
        foreign = {
            item.event.event_id: item.event.room_version
            for item in items
            if item.event is not None and not item.entry.local
        }
        if not foreign:
            return
        cursor = await connection.execute(SQL["early_redactions"], {"targets": [safe(named) for named in foreign]})
        for target, event_id, entry, pdu in await cursor.fetchall():
            named = unsafe(target)
            redaction = Event.from_pdu(orjson.loads(pdu), foreign[named], event_id)
            self.early.setdefault(named, []).append(Early(entry, redaction))

    async def events(
        self, connection: AsyncConnection, wanted: Mapping[str, Sequence[Room]]
    ) -> dict[str, Found | None]:
        """Events by id, each looked for in some rooms; unknown ones are left out, and None is one of another room."""
        # What holds U+0000 is no event's id, and no parameter.
        asked = [event_id for event_id in wanted if "\0" not in event_id]
        if not asked:
            return {}
        cursor = await connection.execute(SQL["events"], {"event_ids": asked})
        found: dict[str, Found | None] = {}
        for event_id, entry, verdict, line, position, timeline, room_id, pdu in await cursor.fetchall():
            room = next((room for room in wanted[event_id] if room.room_id == room_id), None)
            if room is None:
                found[event_id] = None
                continue
            event = Event.from_pdu(orjson.loads(pdu), room.version, event_id)
            event.rejected = verdict in ("r", "t", "q")
            found[event_id] = Found(entry, verdict, line or 0, position or 0, timeline, event)
        return found

    async def former(
        self, connection: AsyncConnection, room: Room, keys: Iterable[StateKey], most: int
    ) -> dict[str, tuple[int, Event]]:
        """Entries and events, by id, that have stood at keys of a room's state."""
        asked = list(keys)
        cursor = await connection.execute(
            SQL["former"],
            {
                "room": room.nid,
                "types": [safe(key[0]) for key in asked],
                "keys": [safe(key[1]) for key in asked],
                "most": most,
            },
        )
        return {
            event_id: (entry, Event.from_pdu(orjson.loads(pdu), room.version, event_id))
            for event_id, entry, pdu in await cursor.fetchall()
        }

    async def state_at(
        self, connection: AsyncConnection, room: Room, line: int, position: int
    ) -> dict[StateKey, tuple[str, int]]:
        """The whole state after a position on a line: event id and entry by key."""
        cursor = await connection.execute(SQL["state_at"], {"room": room.nid, "line": line, "position": position})
        return {
            (unsafe(kind), unsafe(key)): (event_id, entry) for kind, key, event_id, entry in await cursor.fetchall()
        }

    async def _take_numbers(self, connection: AsyncConnection, count: int) -> None:
        if len(self._numbers) < count:
            cursor = await connection.execute(SQL["room_numbers"], {"count": max(count, 32)})
            self._numbers += [row[0] for row in await cursor.fetchall()]

    async def _load_user_facts(self, connection: AsyncConnection, items: Iterable[Item]) -> None:
        self.receipts, self.timelines, self.aliases, self.standing = {}, {}, {}, {}
        self.presences, self.rooms_of = {}, {}
        mine = [(item, item.body) for item in items if item.body is not None]
        receipts = [
            (i.room.nid, i.entry.sender, b["receipt_type"], b.get("thread_id", ""), b["event_id"])
            for i, b in mine
            if i.entry.type == "m.receipt" and i.room is not None
        ]
        if receipts:
            cursor = await connection.execute(
                SQL["receipts"],
                {
                    "rooms": [r[0] for r in receipts],
                    "users": [r[1] for r in receipts],
                    "types": [r[2] for r in receipts],
                    "threads": [r[3] for r in receipts],
                },
            )
            self.receipts = {(row[0], row[1], row[2], row[3]): row[4] for row in await cursor.fetchall()}
            cursor = await connection.execute(SQL["timeline_of"], {"event_ids": list({r[4] for r in receipts})})
            self.timelines = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
        aliases = [b["alias"] for i, b in mine if i.entry.type == "alias"]
        if aliases:
            cursor = await connection.execute(SQL["aliases"], {"aliases": aliases})
            self.aliases = {row[0]: row[1] for row in await cursor.fetchall()}
        leavers = [(i.room.nid, i.entry.sender) for i, b in mine if i.entry.type == "forget" and i.room is not None]
        if leavers:
            cursor = await connection.execute(
                SQL["members"], {"users": [u for _, u in leavers], "rooms": [r for r, _ in leavers]}
            )
            self.standing = {(row[0], row[1]): row[2] for row in await cursor.fetchall()}
        announced = list({i.entry.sender for i, _ in mine if i.entry.type == "keys"})
        if announced:
            cursor = await connection.execute(SQL["rooms_of"], {"users": announced})
            self.rooms_of.update({row[0]: row[1] for row in await cursor.fetchall()})
        present = list({i.entry.sender for i, _ in mine if i.entry.type == "presence"})
        if present:
            cursor = await connection.execute(SQL["presences"], {"users": present, "most": MOST_ROOMS_TOLD})
            for user_id, rooms, presence, status_msg, changed, position in await cursor.fetchall():
                self.rooms_of.setdefault(user_id, rooms or [])
                if presence is not None:
                    self.presences[user_id] = {
                        "presence": presence,
                        "status_msg": status_msg,
                        "changed": changed,
                        "position": position,
                    }
