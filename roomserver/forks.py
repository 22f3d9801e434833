"""Judging an event off its room's main line: forks, merges, late events of other servers.

Invariant: called with nothing uncommitted, so the tables are the truth; works on whole state maps, and leaves the room to be read
again. State lines other than 0 never change after the position they begin at: each is one flattened difference from the main line.

            main line   ──A──B──C──────M──▶        M merges: the current state is resolved anew from
                           └──D──E──┘              the states after all forward extremities
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from psycopg import AsyncConnection

from matrix.auth_rules import AuthError, check_against_state, check_event_alone
from matrix.events import Event
from matrix.room_versions import RoomVersion
from matrix.state_resolution import Resolution, missing_auth_events, resolve
from roomserver.effects import Effects
from roomserver.judge import MissingEvents, change_member, relate, replaced
from roomserver.redactions import LEVELS, is_withheld, redact, redacted_early
from roomserver.rooms import Known, Room, StateEvent, StateKey
from roomserver.store import CREATE, SQL, Found, Item, Store

# Levels of auth chains loaded for one resolution, and after how many what has stood at the keys in question is loaded at once: who
# has changed their name a thousand times has a chain of a thousand levels.
MAX_ROUNDS = 1_000
DEEP_ROUNDS = 8
MOST_FORMER = 20_000
# How far behind an event extremities are looked for, past events that were not accepted; `heads` in projections.sql says the same.
MOST_NOT_ACCEPTED = 100

Ids = dict[StateKey, str]
Resolver = Callable[[RoomVersion, Sequence[Ids], Mapping[str, Event]], Awaitable[Resolution]]


async def resolve_here(version: RoomVersion, states: Sequence[Ids], events: Mapping[str, Event]) -> Resolution:
    """Resolves in this process: right for small rooms."""
    return resolve(version, states, events)


class Fork:
    """One decision: `gather` reads and resolves, `apply` adds the effects at a position. Between them the room must stand still.

    `resolver` carries a resolution out, here or in another process.
    """

    def __init__(self, connection: AsyncConnection, store: Store, item: Item, resolver: Resolver) -> None:
        assert item.room is not None and item.event is not None
        self.connection = connection
        self.store = store
        self.item = item
        self.resolver = resolver
        self.room: Room = item.room
        self.event: Event = item.event
        self.events: dict[str, Event] = {self.event.event_id: self.event}
        self.entries: dict[str, int] = {self.event.event_id: item.entry.id}
        self.verdict = ""
        self.reason: str | None = None
        self._old: Ids = {}
        self._new: Mapping[StateKey, str] = {}
        self._after: Ids = {}
        self._extremities: set[str] = set()
        self._resolutions: list[tuple[str, Resolution, list[str]]] = []
        self._line = 0
        self._line_is_new = False
        self._power: dict[StateKey, Event] = {}
        self._target: Known | None = None
        self._elsewhere: set[str] = set()

    async def gather(self) -> None:
        """Decides. Raises MissingEvents."""
        room, event = self.room, self.event
        current = self._old = self._new = await self._state_after(0, room.position)
        previous = await self._known(event.prev_events)
        before_states = [await self._state_after(known.line, known.position) for known in previous.values()]
        before = await self._resolve(before_states)
        self._resolutions.append(("before", before, list(previous)))
        self.verdict, self.reason = await self._authorise(before.state, current)
        self._after = dict(before.state)
        if event.state_key is not None and self.verdict != "r":
            self._after[event.type, event.state_key] = event.event_id
        if self.verdict == "a":
            self._extremities = (room.extremities - await self._covered(previous)) | {event.event_id}
            others = await self._known(sorted(self._extremities - {event.event_id}))
            states = [self._after, *[await self._state_after(k.line, k.position) for k in others.values()]]
            now = await self._resolve(states)
            self._resolutions.append(("current", now, [event.event_id, *others]))
            self._new = now.state
            await self._find_target()
        await self._choose_line(previous)
        # Whatever changes is read now: `apply` only writes down.
        changed = self._changes(self._old, self._new) + self._changes(self._after, self._new)
        ids = {state[key] for key in changed for state in (self._old, self._new, self._after) if key in state}
        await self._load([event_id for event_id in ids if event_id not in self.events])

    def apply(self, effects: Effects) -> str:
        """Adds the effects; returns the verdict."""
        room, event, item = self.room, self.event, self.item
        position = effects.next_position()
        annotation: dict[str, Any] = {}
        withheld = False
        if self.verdict == "a":
            annotation = self._move_current(effects, position)
            room.extremities = self._extremities
            room.depth = max(room.depth, event.depth)
            if event.redacts is not None and event.state_key is None:
                annotation |= redact(
                    room, event, item.entry.id, self._target, self._power, position, self.store, effects
                )
                withheld = is_withheld(event, annotation)
            if not item.entry.local and event.event_id in self.store.early:
                annotation |= redacted_early(room, event, self._power, position, self.store, effects)
            if not withheld:
                relate(room, event, item.entry.id, position, effects)
        if self._line_is_new:
            effects.add("lines", room=room.nid, line=self._line, base_position=position)
            for key in self._changes(self._after, self._new):
                value = None
                if key in self._after:
                    value = (self.entries[self._after[key]], self.events[self._after[key]])
                effects.set_state(room, self._line, key, position, value, existed=False)
        for purpose, resolution, branches in self._resolutions:
            self._record(effects, position, purpose, resolution, branches)
        effects.output(
            position,
            item.entry.kind,
            item.entry.id,
            self.verdict,
            room=room.nid,
            timeline=position if self.verdict == "a" and not withheld else None,
            line=self._line,
            reason=self.reason,
            annotation=annotation or None,
        )
        room.position = position
        if item.entry.seq is not None:
            room.judged_seq = max(room.judged_seq, item.entry.seq)
            if self.verdict != "a":
                room.generation += 1
        effects.touched[room.nid] = room
        return self.verdict

    async def _state_after(self, line: int, position: int) -> Ids:
        state = await self.store.state_at(self.connection, self.room, line, position)
        self.entries.update(state.values())
        return {key: event_id for key, (event_id, _) in state.items()}

    async def _known(self, event_ids: tuple[str, ...] | list[str]) -> dict[str, Known]:
        """What was decided on events; raises MissingEvents for those of which nothing is known."""
        known = await self._judged(event_ids)
        missing = [event_id for event_id in event_ids if event_id not in known or known[event_id].verdict in ("t", "q")]
        if missing:
            raise MissingEvents(missing)
        return known

    async def _judged(self, event_ids: tuple[str, ...] | list[str]) -> dict[str, Known]:
        """What was decided on those of the events that something is known of."""
        known = {event_id: self.room.known[event_id] for event_id in event_ids if event_id in self.room.known}
        unread = [event_id for event_id in event_ids if event_id not in known]
        for event_id, found in (await self._load(unread)).items():
            if found.verdict is not None:
                known[event_id] = Known(found.entry, found.verdict, found.line, found.position, found.event)
        return known

    async def _covered(self, previous: Mapping[str, Known]) -> set[str]:
        """What the event follows: its previous events and, behind those that are no extremities since they were soft-failed or
        rejected, theirs."""
        covered: set[str] = set()
        following = dict(previous)
        for _ in range(MOST_NOT_ACCEPTED):
            covered.update(following)
            behind = {
                event_id
                for known in following.values()
                if known.verdict in ("s", "r") and known.event is not None
                for event_id in known.event.prev_events
            }
            if behind <= covered or self.room.extremities <= covered:
                break
            following = await self._judged(sorted(behind - covered))
        return covered

    async def _load(self, event_ids: list[str]) -> dict[str, Found]:
        answers = await self.store.events(self.connection, dict.fromkeys(event_ids, (self.room,)))
        self._elsewhere.update(event_id for event_id, one in answers.items() if one is None)
        found = {event_id: one for event_id, one in answers.items() if one is not None}
        for event_id, one in found.items():
            self.events[event_id] = one.event
            self.entries[event_id] = one.entry
        return found

    async def _event(self, event_id: str) -> Event:
        if event_id not in self.events and event_id not in await self._load([event_id]):
            raise MissingEvents([event_id])
        return self.events[event_id]

    async def _resolve(self, states: list[Ids]) -> Resolution:
        """Loads the auth chains that the resolution reads, a level per round, and resolves."""
        asked: set[StateKey] = set()
        for number in range(MAX_ROUNDS):
            missing = missing_auth_events(self.room.version, states, self.events)
            if not missing:
                return await self.resolver(self.room.version, states, self.events)
            found = await self._load(list(missing))
            if len(found) < len(missing):
                raise MissingEvents(sorted(missing - found.keys()))
            keys = {(one.event.type, one.event.state_key or "") for one in found.values()} - asked
            if number >= DEEP_ROUNDS and keys:
                asked |= keys
                former = await self.store.former(self.connection, self.room, keys, MOST_FORMER)
                for event_id, (entry, event) in former.items():
                    self.events.setdefault(event_id, event)
                    self.entries[event_id] = entry
        raise RuntimeError(f"the auth chains of {self.room.room_id} are deeper than {MAX_ROUNDS}")

    async def _authorise(self, before: Mapping[StateKey, str], current: Ids) -> tuple[str, str | None]:
        """The three checks of the specification ("Checks performed on receipt of a PDU", 4 to 6)."""
        event = self.event
        await self._load([event_id for event_id in event.auth_events if event_id not in self.events])
        create = before.get(CREATE) or current.get(CREATE)
        if create is None:
            return "r", "The room has no create event."
        await self._event(create)
        missing = [event_id for event_id in event.auth_events if event_id not in self.events]
        if not self._elsewhere.isdisjoint(missing):
            return "r", "An auth event is of another room."
        if missing:
            raise MissingEvents(missing)
        try:
            # 4. "Passes authorization rules based on the event's auth events, otherwise it is rejected."
            check_event_alone(event, self.events)
            named = {
                (auth_event.type, auth_event.state_key or ""): auth_event
                for auth_event in (self.events[event_id] for event_id in event.auth_events)
            }
            named.setdefault(CREATE, self.events[create])
            check_against_state(event, named)
            # 5. "Passes authorization rules based on the state before the event, otherwise it is rejected."
            check_against_state(event, await self._subset(before))
        except AuthError as error:
            return "r", error.reason
        try:
            # 6. "Passes authorization rules based on the current state of the room, otherwise it is soft failed."
            check_against_state(event, await self._subset(current))
        except AuthError as error:
            return "s", error.reason
        return "a", None

    async def _subset(self, state: Mapping[StateKey, str]) -> dict[StateKey, Event]:
        wanted = {key: state[key] for key in [*self.item.keys, CREATE] if key in state}
        await self._load([event_id for event_id in wanted.values() if event_id not in self.events])
        return {key: await self._event(event_id) for key, event_id in wanted.items()}

    @staticmethod
    def _changes(old: Mapping[StateKey, str], new: Mapping[StateKey, str]) -> list[StateKey]:
        return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))

    def _move_current(self, effects: Effects, position: int) -> dict[str, Any]:
        """Brings the main line from one state to the other at a position; returns the words for the annotation."""
        old, new = self._old, self._new
        changed = self._changes(old, new)
        room, event = self.room, self.event
        words: dict[str, Any] = {}
        members: list[list[Any]] = []
        delta: list[list[Any]] = []
        for key in changed:
            was = self.events[old[key]] if key in old else None
            now = self.events[new[key]] if key in new else None
            value = None if now is None else (self.entries[now.event_id], now)
            effects.set_state(room, 0, key, position, value, existed=was is not None)
            entry = self.item.entry.id if value is None else value[0]
            delta.append([*key, None if now is None else now.event_id, None if value is None else entry])
            if key[0] == "m.room.member":
                change = change_member(room, now, was, entry, position, effects)
                members += change.pop("members")
                words |= change
            if now is event and was is not None:
                words |= replaced(StateEvent(self.entries[was.event_id], was))
        if changed:
            room.state_position = position
            room.senders.clear()
        if delta and not (len(delta) == 1 and delta[0][2] == event.event_id):
            words["state"] = delta
        elif delta:
            words["current"] = True
        if members:
            words["members"] = members
        return words

    async def _find_target(self) -> None:
        """Reads what a redaction names, and what says whether one applies."""
        event, early = self.event, self.event.event_id in self.store.early
        if event.redacts is None and not early:
            return
        if event.redacts is not None:
            found = (await self._load([event.redacts])).get(event.redacts)
            if found is not None and found.verdict is not None:
                self._target = Known(found.entry, found.verdict, found.line, found.position, found.event)
        keys = [key for key in (CREATE, LEVELS) if key in self._new]
        self._power = {key: await self._event(self._new[key]) for key in keys}

    async def _choose_line(self, previous: dict[str, Known]) -> None:
        """The state line on which the state after the event stands."""
        if self._after == self._new:
            return
        if self.event.state_key is None:
            for known in previous.values():
                # A line does not change after it begins, so a message may stand on it as well.
                if known.line and await self._state_after(known.line, known.position) == self._after:
                    self._line = known.line
                    return
        cursor = await self.connection.execute(SQL["next_line"], {"room": self.room.nid})
        row = await cursor.fetchone()
        assert row is not None
        self._line, self._line_is_new = int(row[0]), True

    def _record(
        self, effects: Effects, position: int, purpose: str, resolution: Resolution, branches: list[str]
    ) -> None:
        if resolution.trivial:
            return
        account = resolution.record()
        conflicts = account.pop("conflicts")
        effects.add(
            "resolutions",
            room=self.room.nid,
            position=position,
            purpose=purpose,
            algorithm=resolution.algorithm,
            inputs=orjson.dumps({"branches": branches, "conflicts": conflicts}).decode(),
            outcome=orjson.dumps(account).decode(),
        )
