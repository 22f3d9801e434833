"""Unread counts: how many events notify a user beyond what they have read, per room and thread.

Invariant: a counter is as of a position; it is moved forward over the room's recent past while that is at hand, and counted
from the tables otherwise. It is looked at when a response needs it, so users who are away cost nothing.
Source: client-server API, "Receiving notifications".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from matrix.push_evaluation import DEFAULT_EVALUATOR, Evaluator, compile_ruleset
from matrix.push_rules import PushRuleset
from matrix.relations import HOPS, MAIN, relation_of, thread_of
from readers.sync.bases import Bases
from readers.sync.counters import Counter
from readers.sync.events import Events
from readers.sync.feed import SQL
from readers.sync.notifications import TYPES, Notifications, may_notify
from readers.sync.outputs import Output
from readers.sync.rooms import Room, Rooms
from readers.sync.users import User

MOST_UNREAD: Final = 2_000
"""Events looked at in a room when counting from the tables; what is unread beyond them is left out."""
MOST_AT_ONCE: Final = 10_000
"""Likewise in all rooms of a response, shared among them but for a hundred each."""
SLICE: Final = 250
"""Events evaluated at a stretch before other tasks get a turn."""

PUSH_RULES: Final = "m.push_rules"


def evaluator_of(content: Any) -> Evaluator:
    """The evaluator of an m.push_rules as it is stored; the default one if it cannot be read."""
    try:
        return compile_ruleset(PushRuleset.from_stored(content))
    except (KeyError, TypeError, ValueError, AttributeError):
        return DEFAULT_EVALUATOR


class Unread:
    """Counts for the users of this process."""

    def __init__(self, rooms: Rooms, events: Events) -> None:
        self._rooms = rooms
        self._events = events
        self._notifications = Notifications()
        self.bases = Bases(rooms, events)

    def ready(self, user: User, nid: int, shard: int, applied: int) -> bool:
        """Brings the user's counter of a room up to the applied position; False if that takes asking the tables."""
        counter = user.unread.get(nid)
        if counter is None:
            return False
        room = self._rooms.get(nid)
        if room is None:
            done = counter.position >= self._rooms.floors[shard]
        else:
            done = room.last <= counter.position or self._forward(user, counter, room)
        if done:
            counter.position = max(counter.position, applied)
        else:
            del user.unread[nid]
        return done

    def _forward(self, user: User, counter: Counter, room: Room) -> bool:
        timeline, receipts = room.after(counter.position), room.receipts_after(counter.position)
        if timeline is None or receipts is None or (timeline and room.basis is None):
            return False
        own = [receipt for receipt in receipts if receipt.user_id == user.user_id]
        for receipt in own:
            order = next((o.timeline for o in reversed(room.entries) if o.event_id == receipt.event_id), None)
            if order is None:
                return False
            counter.read[receipt.thread_id] = max(counter.read.get(receipt.thread_id, 0), order)
        if own and counter.counts:
            # What is read now has to be told from what is not: it is counted again, from where reading ended.
            if room.basis is not None and counter.read[""] >= room.floor:
                timeline = room.after(counter.read[""]) or []
            elif not all(counter.is_read(thread, counter.position) for thread in counter.counts):
                return False
            counter.counts.clear()
        return all(self._count(user, counter, output, room) for output in timeline)

    def _count(self, user: User, counter: Counter, output: Output, room: Room) -> bool:
        """Counts one event of the cache; False if the tables are needed for it."""
        if output.annotation is not None:
            if "redacts" in output.notes:
                return False
            for user_id, _, _ in output.notes.get("members") or ():
                if user_id == user.user_id:
                    return False
        assert room.basis is not None
        outcome = self._notifications.evaluate(output, room.basis, user, counter.display_name)
        if not outcome.notify:
            return True
        contents = {o.event_id: o for o in room.entries} if b'"m.relates_to"' in output.json else {}

        def find(event_id: str) -> Any:
            found = contents.get(event_id)
            return None if found is None else orjson.loads(found.json)["content"]

        thread = thread_of(self._notifications.facts(output, room.basis).content, find)
        if thread is None:
            return False
        if not counter.is_read(thread, output.timeline or 0):
            counter.add(thread, outcome.highlight)
        return True

    async def count(self, connection: AsyncConnection, user: User, asked: dict[int, tuple[int, int]]) -> None:
        """Counts from the tables: room number → (position to count up to, where the user's stay began)."""
        if not asked:
            return
        rooms = list(asked)
        counters = {nid: Counter(upto, {"": joined_at}) for nid, (upto, joined_at) in asked.items()}
        parameters: dict[str, Any] = {
            "user_id": user.user_id,
            "rooms": rooms,
            "upto": max(upto for upto, _ in asked.values()),
        }
        for nid, thread, order in await (await connection.execute(SQL["own_receipts"], parameters)).fetchall():
            read = counters[nid].read
            read[thread] = max(read.get(thread, 0), order)
        unread, lacking = self._from_cache(user, counters)
        most = max(100, min(MOST_UNREAD, MOST_AT_ONCE // len(rooms)))
        if lacking:
            parameters = {
                "user_id": user.user_id,
                "rooms": lacking,
                "after": [counters[nid].read[""] for nid in lacking],
                "upto": [asked[nid][0] for nid in lacking],
                "types": list(TYPES) if user.evaluator is DEFAULT_EVALUATOR else None,
                "most": most,
            }
            rows = await (await connection.execute(SQL["unread_spans"], parameters)).fetchall()
            events = await self._events.fetch(connection, dict.fromkeys(row[1] for row in rows))
            unread += [(lacking[i - 1], events[entry]) for i, entry in rows if entry in events]
        if user.evaluator is not DEFAULT_EVALUATOR:
            await self._read_names(connection, user, counters)
        bases = await self.bases.read(list({nid for nid, _ in unread}), connection)
        contents = await self._read_parents(connection, [output for _, output in unread])
        for number, (nid, output) in enumerate(unread):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            basis, counter = bases.get(nid), counters[nid]
            if basis is None:
                continue
            outcome = self._notifications.evaluate(output, basis, user, counter.display_name)
            if outcome.notify:
                content = self._notifications.facts(output, basis).content
                thread = thread_of(content, lambda event_id: contents.get(event_id, {})) or MAIN
                if not counter.is_read(thread, output.timeline or 0):
                    counter.add(thread, outcome.highlight)
        user.unread.update(counters)

    def _from_cache(self, user: User, counters: dict[int, Counter]) -> tuple[list[tuple[int, Output]], list[int]]:
        """What may be unread in the rooms whose recent past reaches back far enough, and the rooms where it does not."""
        unread: list[tuple[int, Output]] = []
        lacking: list[int] = []
        for nid, counter in counters.items():
            room = self._rooms.get(nid)
            entries = None if room is None else room.after(counter.read[""])
            if entries is None:
                lacking.append(nid)
                continue
            for output in entries:
                if output.position <= counter.position and output.sender != user.user_id:
                    if user.evaluator is DEFAULT_EVALUATOR and not may_notify(output):
                        continue
                    unread.append((nid, output))
        return unread, lacking

    async def _read_names(self, connection: AsyncConnection, user: User, counters: dict[int, Counter]) -> None:
        """The user's display names in rooms, which rules of their own may ask for."""
        rooms = list(counters)
        parameters = {
            "rooms": rooms,
            "at": [counters[nid].position for nid in rooms],
            "users": [user.user_id] * len(rooms),
        }
        rows = await (await connection.execute(SQL["members"], parameters)).fetchall()
        events = await self._events.fetch(connection, [row[4] for row in rows])
        for row in rows:
            if row[4] in events:
                name = orjson.loads(events[row[4]].json)["content"].get("displayname")
                counters[rooms[row[0] - 1]].display_name = name if isinstance(name, str) else None

    async def _read_parents(self, connection: AsyncConnection, outputs: Iterable[Output]) -> dict[str, Any]:
        """Contents by event id of what the events relate to otherwise than by a thread, a few steps up."""
        contents: dict[str, Any] = {}
        wanted: set[str] = set()
        for output in outputs:
            if b'"m.relates_to"' in output.json:
                relation = relation_of(orjson.loads(output.json)["content"])
                if relation is not None and relation[0] != "m.thread":
                    wanted.add(relation[1])
        for _ in range(HOPS):
            wanted -= contents.keys()
            if not wanted:
                break
            rows = await (await connection.execute(SQL["entries_of_events"], {"event_ids": list(wanted)})).fetchall()
            events = await self._events.fetch(connection, {row[1] for row in rows})
            wanted = set()
            for output in events.values():
                content = contents[output.event_id] = orjson.loads(output.json)["content"]
                relation = relation_of(content)
                if relation is not None and relation[0] != "m.thread":
                    wanted.add(relation[1])
        return contents
