"""What push rules ask of rooms beside the event: how many are joined, and who may notify them all.

Invariant: a room's basis is dropped when the output that changes it is applied; however many wait for it, the tables are asked
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

import orjson
from psycopg import AsyncConnection

from eventlog.pools import Pool
from matrix.events import Event
from matrix.power_levels import PowerLevels
from readers.sync.events import Events
from readers.sync.feed import SQL
from readers.sync.notifications import RoomBasis
from readers.sync.reading import read
from readers.sync.rooms import Rooms


class Bases:
    """Bases of rooms, kept with those in which something happened lately."""

    def __init__(self, rooms: Rooms, events: Events) -> None:
        self._rooms = rooms
        self._events = events
        self._loading: dict[int, asyncio.Future[None]] = {}

    async def prepare(self, pool: Pool, rooms: Iterable[int]) -> None:
        """Brings the bases of recently active rooms at hand."""
        wanted = [nid for nid in rooms if (room := self._rooms.get(nid)) is not None and room.basis is None]
        mine = [nid for nid in wanted if nid not in self._loading]
        theirs = [self._loading[nid] for nid in wanted if nid in self._loading]
        if mine:
            loading = asyncio.get_running_loop().create_future()
            self._loading.update(dict.fromkeys(mine, loading))
            try:
                await read(pool, partial(self.read, mine))
            finally:
                for nid in mine:
                    del self._loading[nid]
                loading.set_result(None)
        for other in theirs:
            await asyncio.shield(other)

    async def read(self, rooms: list[int], connection: AsyncConnection) -> dict[int, RoomBasis]:
        """The bases of rooms, from the tables where they are not at hand."""
        bases: dict[int, RoomBasis] = {}
        lacking: list[int] = []
        for nid in rooms:
            room = self._rooms.get(nid)
            if room is not None and room.basis is not None:
                bases[nid] = room.basis
            else:
                lacking.append(nid)
        if not lacking:
            return bases
        await self._events.know_versions(connection, lacking)
        rows = await (await connection.execute(SQL["notification_basis"], {"rooms": lacking})).fetchall()
        events = await self._events.fetch(connection, {row[3] for row in rows})
        joined: dict[int, int] = {}
        state: dict[int, dict[str, Event]] = {}
        for i, count, kind, entry in rows:
            nid = lacking[i - 1]
            joined[nid] = count
            version = self._events.versions.get(nid)
            if entry in events and version is not None:
                event = Event.from_pdu(orjson.loads(events[entry].json), version, events[entry].event_id)
                state.setdefault(nid, {})[kind] = event
        for nid, found in state.items():
            create = found.get("m.room.create")
            if create is not None:
                levels = PowerLevels(create, found.get("m.room.power_levels"))
                bases[nid] = RoomBasis(create.room_version, joined[nid], levels)
                if (room := self._rooms.get(nid)) is not None:
                    room.basis = bases[nid]
        return bases
