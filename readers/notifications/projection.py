"""Which events notify whom: evaluated once per event, for all local members in one pass.

Invariant: what an event does by the default rules to whoever it does not name is one row (`notices`), however many are in the
room; another (`exceptions`) stands only for those to whom it does something else: who is mentioned or invited, or has preferences
of their own. No query per member or per event: a batch asks for what it lacks of its rooms, and writes with one statement per
table. Preferences are those at hand when the event is evaluated; changing them later changes nothing of it. Source: client-server
API, "Push notifications".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe
from matrix.events import Event
from matrix.push_evaluation import (
    DEFAULT_EVALUATOR,
    SILENT,
    EventFacts,
    Notification,
    event_facts,
)
from matrix.relations import HOPS, MAIN, relation_of, thread_of
from readers.follower import Judged, scrubbed
from readers.notifications.preferences import NONE, TYPES, Preferences
from readers.notifications.rooms import SQL, Room, Rooms, read_preferences

PUSH: Final = Queries("readers.notifications", "push.sql")

KEPT: Final = 2_000
"""Events of a room, the newest, whose notices are kept: as many as unread counts look at."""
TRIMMED_EVERY: Final = 200
MOST_PREFERENCES: Final = 2_000
MOST_MENTIONED: Final = 500
"""Local users that one event can notify by naming them."""
INVITATION: Final = ""
"""What stands for the thread of an invitation, which is before the room for whom it invites."""


@dataclass(slots=True)
class _Notice:
    """An event that notifies somebody."""

    output: Judged
    facts: EventFacts
    content: dict[str, Any]
    common: Notification
    others: dict[str, Notification]


class NotificationsProjection:
    """Keeps notifications.notices and exceptions."""

    name: Final = "notifications"

    def __init__(self, server_name: str) -> None:
        self._ending = f":{server_name}"
        self._rooms = Rooms()
        self._preferences: OrderedDict[str, Preferences] = OrderedDict()

    async def begin(self, connection: AsyncConnection) -> None:
        """Forgets what is cached."""
        self._preferences.clear()
        await self._rooms.begin(connection)

    async def clear(self, connection: AsyncConnection) -> None:
        """Removes all rows."""
        await connection.execute(SQL["clear"])

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        """Evaluates the events among some outputs."""
        redacted: set[str] = set()
        notices: list[_Notice] = []
        start = 0
        while start < len(outputs):
            # Usually one round: a room whose state was resolved is read again behind that.
            start = await self._evaluate(connection, outputs, start, notices, redacted)
        notices = [one for one in notices if one.output.event_id not in redacted]
        if notices:
            await self._write(connection, notices)
        if redacted:
            await connection.execute(SQL["take_back"], {"event_ids": list(redacted)})
        if any(scrubbed(outputs)):
            await connection.execute(SQL["tidy"], {"all": True})
        self._rooms.shrink()

    async def tidy(self, connection: AsyncConnection) -> None:
        """Forgets events that retention has dropped."""
        await connection.execute(SQL["tidy"], {"all": False})

    async def _evaluate(
        self,
        connection: AsyncConnection,
        outputs: Sequence[Judged],
        start: int,
        notices: list[_Notice],
        redacted: set[str],
    ) -> int:
        """Goes over outputs until a room has to be read again; returns where to go on."""
        at: dict[int, int] = {}
        for output in outputs[start:]:
            if output.in_timeline and output.room is not None:
                # Before its create event there is nothing to read of a room.
                begun = output.type != "m.room.create"
                at.setdefault(output.room, output.position - begun)
        await self._rooms.load(connection, at)
        await self._learn_preferences(connection, at, outputs[start:])
        for number, output in enumerate(outputs[start:], start):
            if output.verdict != "a":
                continue
            if "redacts" in output.notes:
                redacted.add(output.notes["redacts"])
            if output.kind == "u":
                if output.type == "account_data" and not self._learn_account_data(output):
                    return number + 1
                continue
            if not output.in_timeline or output.room is None:
                continue
            room = self._rooms.get(output.room)
            if room is None:
                continue
            event = None
            if output.kind == "s" or may_notify(output, room):
                event = Event.from_pdu(orjson.loads(output.json), room.version, output.event_id)
            kept = self._rooms.move(output, event)
            if event is not None and output.timeline is not None and output.timeline > 0:
                notice = self._notice(output, event, room)
                if notice is not None:
                    notices.append(notice)
            if not kept:
                return number + 1
        return len(outputs)

    def _notice(self, output: Judged, event: Event, room: Room) -> _Notice | None:
        """What an event does; None if nothing to anybody."""
        facts = event_facts(event, room.joined, room.levels)
        left = facts.left_of(DEFAULT_EVALUATOR)
        common = next((outcome for conditions, outcome in left if not conditions), SILENT)
        others: dict[str, Notification] = {}
        for user_id in dict.fromkeys((*self._named(event), *room.ruled)):
            preferences = self._preferences.get(user_id, NONE)
            outcome = preferences.outcome(event, facts, user_id, room.ruled.get(user_id))
            if outcome != common and user_id != event.sender and (outcome.notify or common.notify):
                others[user_id] = outcome
        if not common.notify and not others:
            return None
        return _Notice(output, facts, event.content, common, others)

    def _named(self, event: Event) -> list[str]:
        """The local users whom the default rules may single out."""
        named: list[str] = []
        mentions = event.content.get("m.mentions")
        users = mentions.get("user_ids") if isinstance(mentions, dict) else None
        if isinstance(users, list):
            named += [one for one in users if isinstance(one, str) and one.endswith(self._ending) and "\0" not in one]
        if event.type == "m.room.member" and event.state_key is not None and event.state_key.endswith(self._ending):
            named.append(event.state_key)
        return named[:MOST_MENTIONED]

    def _learn_account_data(self, output: Judged) -> bool:
        """Lets go of preferences that were changed; False if they, and rooms, have to be loaded again."""
        body = orjson.loads(output.json) if output.json else {}
        if body.get("type") not in TYPES or body.get("room_id"):
            return True
        known = self._rooms.preferences_changed(output.sender)
        return self._preferences.pop(output.sender, None) is None and known

    async def _learn_preferences(
        self, connection: AsyncConnection, rooms: dict[int, int], outputs: Sequence[Judged]
    ) -> None:
        """Brings the preferences at hand of those in the rooms, or about to be, who have any of their own."""
        wanted = {user_id for nid in rooms if (room := self._rooms.get(nid)) is not None for user_id in room.ruled}
        for output in outputs:
            if output.type == "m.room.member" and output.state_key and self._rooms.has_preferences(output.state_key):
                wanted.add(output.state_key)
        for user_id in wanted & self._preferences.keys():
            self._preferences.move_to_end(user_id)
        lacking = list(wanted - self._preferences.keys())
        if lacking:
            self._preferences.update(await read_preferences(connection, lacking))
            while len(self._preferences) > max(MOST_PREFERENCES, len(wanted)):
                self._preferences.popitem(last=False)

    async def _write(self, connection: AsyncConnection, notices: list[_Notice]) -> None:
        contents = await _parents(connection, notices)
        present = await _present(connection, notices)
        common: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        full: list[int] = []
        for one in notices:
            output = one.output
            assert output.room is not None
            thread = thread_of(one.content, lambda event_id: contents.get(event_id, {})) or MAIN
            row = {
                "room": output.room,
                "timeline": output.timeline,
                "entry": output.entry,
                "event_id": output.event_id,
            }
            if one.common.notify:
                common.append({**row, "sender": output.sender, "thread": thread, **_words(one.common)})
            for user_id, outcome in one.others.items():
                if (output.entry, user_id) not in present:
                    continue
                invited = output.type == "m.room.member" and output.state_key == user_id
                place = INVITATION if invited else thread
                others.append({**row, "user_id": user_id, "thread": place, "notify": outcome.notify, **_words(outcome)})
            room = self._rooms.get(output.room)
            if room is not None:
                room.untrimmed += 1
                if room.untrimmed >= TRIMMED_EVERY:
                    room.untrimmed = 0
                    full.append(output.room)
        if common:
            await connection.execute(SQL["notice"], {"notices": orjson.dumps(common).decode()})
        if others:
            await connection.execute(SQL["except"], {"exceptions": orjson.dumps(others).decode()})
        if common or others:
            of_events = [one.output for one in notices]
            await connection.execute(
                PUSH["enqueue"],
                {
                    "rooms": [output.room for output in of_events],
                    "timelines": [output.timeline for output in of_events],
                    "entries": [output.entry for output in of_events],
                },
            )
        if full:
            await connection.execute(SQL["trim"], {"rooms": list(set(full)), "kept": KEPT})


_TYPES: Final = frozenset(("m.room.message", "m.room.encrypted", "m.room.tombstone", "m.call.invite"))


def may_notify(output: Judged, room: Room) -> bool:
    """Whether an event may notify anybody, going by its type and who is in the room."""
    return bool(room.ruled) or output.type in _TYPES or "m.mentions" in output.json


def _words(outcome: Notification) -> dict[str, Any]:
    # jsonb, by which the rows travel, refuses U+0000; as JSON within a string it is only escaped.
    return {"highlight": outcome.highlight, "actions": orjson.dumps(list(outcome.actions)).decode()}


async def _present(connection: AsyncConnection, notices: Sequence[_Notice]) -> set[tuple[int, str]]:
    """Of the users with an outcome of their own, those who are in the room or invited, each with the event's entry."""
    wanted = [(one.output, user_id) for one in notices for user_id in one.others]
    if not wanted:
        return set()
    parameters = {
        "rooms": [output.room for output, _ in wanted],
        "at": [output.position for output, _ in wanted],
        "users": [safe(user_id) for _, user_id in wanted],
    }
    found = await (await connection.execute(SQL["present"], parameters)).fetchall()
    return {(wanted[i - 1][0].entry, wanted[i - 1][1]) for (i,) in found}


async def _parents(connection: AsyncConnection, notices: Sequence[_Notice]) -> dict[str, Any]:
    """Contents by event id of what the events relate to otherwise than by a thread, a few steps up."""
    contents: dict[str, Any] = {}
    wanted = {found[1] for one in notices if (found := relation_of(one.content)) is not None and found[0] != "m.thread"}
    for _ in range(HOPS):
        wanted -= contents.keys()
        if not wanted:
            break
        cursor = await connection.execute(SQL["parents"], {"event_ids": list(wanted)})
        wanted = set()
        for event_id, pdu in await cursor.fetchall():
            content = contents[event_id] = orjson.loads(pdu)["content"]
            found = relation_of(content)
            if found is not None and found[0] != "m.thread":
                wanted.add(found[1])
    return contents
