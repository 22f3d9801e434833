"""Judging an event off its room's main line: forks, merges, late events of other servers.

Invariant: called with nothing uncommitted, so the tables are the truth; works on whole state maps, and leaves the room to be read
again. State lines other than 0 never change after the position they begin at: each is one flattened difference from the main line.

            main line   ──A──B──C──────M──▶        M merges: the current state is resolved anew from
                           └──D──E──┘              the states after all forward extremities
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from psycopg import AsyncConnection

from matrix.auth_rules import AuthError, check_against_state, check_event_alone
from matrix.events import Event
from matrix.state_resolution import Resolution, missing_auth_events, resolve
from roomserver.effects import Effects
from roomserver.judge import MissingEvents, change_member, may_redact, relate, replaced
from roomserver.rooms import Known, Room, StateEvent, StateKey
from roomserver.store import CREATE, Item, Store

# Levels of auth chains loaded for one resolution; a room has a few dozen at most.
MAX_ROUNDS = 1_000

Ids = dict[StateKey, str]


class Fork:
    """One decision, with the events it reads."""

    def __init__(self, connection: AsyncConnection, store: Store, item: Item, effects: Effects) -> None:
        assert item.room is not None and item.event is not None
        self.connection = connection
        self.store = store
        self.item = item
        self.effects = effects
        self.room: Room = item.room
        self.event: Event = item.event
        self.events: dict[str, Event] = {self.event.event_id: self.event}
        self.entries: dict[str, int] = {self.event.event_id: item.entry.id}

    async def judge(self) -> str:
        """Decides, adds the effects, returns the verdict. Raises MissingEvents."""
        room, event, effects = self.room, self.event, self.effects
        current = await self._state_after(0, room.position)
        previous = await self._known(event.prev_events)
        before_states = [await self._state_after(known.line, known.position) for known in previous.values()]
        before = await self._resolve("before", before_states, list(previous))
        verdict, reason = await self._authorise(before.state, current)
        position = effects.next_position()
        after: Ids = dict(before.state)
        if event.state_key is not None and verdict != "r":
            after[event.type, event.state_key] = event.event_id
        resolutions = [("before", before, list(previous))]
        present = current
        annotation: dict[str, Any] = {}
        if verdict == "a":
            extremities = (room.extremities - set(event.prev_events)) | {event.event_id}
            others = await self._known(sorted(extremities - {event.event_id}))
            states = [after] + [await self._state_after(known.line, known.position) for known in others.values()]
            now = await self._resolve("current", states, [event.event_id, *others])
            resolutions.append(("current", now, [event.event_id, *others]))
            present = now.state
            annotation = await self._move_current(current, present, position)
            room.extremities = extremities
            room.depth = max(room.depth, event.depth)
            annotation |= await self._redact(position)
            relate(room, event, self.item.entry.id, position, effects)
        line = await self._line(after, present, previous, position)
        for purpose, resolution, branches in resolutions:
            self._record(position, purpose, resolution, branches)
        effects.output(
            position,
            self.item.entry.kind,
            self.item.entry.id,
            verdict,
            room=room.nid,
            timeline=position if verdict == "a" else None,
            line=line,
            reason=reason,
            annotation=annotation or None,
        )
        room.position = position
        if self.item.entry.seq is not None:
            room.judged_seq = max(room.judged_seq, self.item.entry.seq)
            if verdict != "a":
                room.generation += 1
        effects.touched[room.nid] = room
        return verdict

    async def _state_after(self, line: int, position: int) -> Ids:
        state = await self.store.state_at(self.connection, self.room, line, position)
        self.entries.update(state.values())
        return {key: event_id for key, (event_id, _) in state.items()}

    async def _known(self, event_ids: tuple[str, ...] | list[str]) -> dict[str, Known]:
        """What was decided on events; raises MissingEvents for those of which nothing is known."""
        known = {event_id: self.room.known[event_id] for event_id in event_ids if event_id in self.room.known}
        unread = [event_id for event_id in event_ids if event_id not in known]
        for event_id, found in (await self._load(unread)).items():
            if found.verdict is not None:
                known[event_id] = Known(found.entry, found.verdict, found.line, found.position, found.event)
        missing = [event_id for event_id in event_ids if event_id not in known or known[event_id].verdict in ("t", "q")]
        if missing:
            raise MissingEvents(missing)
        return known

    async def _load(self, event_ids: list[str]) -> dict[str, Any]:
        found = await self.store.events(self.connection, dict.fromkeys(event_ids, self.room.version))
        for event_id, one in found.items():
            self.events[event_id] = one.event
            self.entries[event_id] = one.entry
        return found

    async def _event(self, event_id: str) -> Event:
        if event_id not in self.events and event_id not in await self._load([event_id]):
            raise MissingEvents([event_id])
        return self.events[event_id]

    async def _resolve(self, purpose: str, states: list[Ids], branches: list[str]) -> Resolution:
        """Loads the auth chains that the resolution reads, a level per round, and resolves."""
        for _ in range(MAX_ROUNDS):
            missing = missing_auth_events(self.room.version, states, self.events)
            if not missing:
                return resolve(self.room.version, states, self.events)
            found = await self._load(list(missing))
            if len(found) < len(missing):
                raise MissingEvents(sorted(missing - found.keys()))
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

    async def _move_current(self, old: Ids, new: Mapping[StateKey, str], position: int) -> dict[str, Any]:
        """Brings the main line from one state to another at a position; returns the words for the annotation."""
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        await self._load(
            [e for key in changed for e in (old.get(key), new.get(key)) if e is not None and e not in self.events]
        )
        room, event, effects = self.room, self.event, self.effects
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

    async def _redact(self, position: int) -> dict[str, Any]:
        event, room = self.event, self.room
        if event.redacts is None:
            return {}
        target = (await self._load([event.redacts])).get(event.redacts)
        create, levels = room.state.get(CREATE), room.state.get(("m.room.power_levels", ""))
        if target is None or target.verdict != "a" or create is None:
            return {}
        if not may_redact(room, event, target.event, create.event, None if levels is None else levels.event):
            return {}
        self.effects.add(
            "redactions",
            target=event.redacts,
            redaction=event.event_id,
            entry=self.item.entry.id,
            room=room.nid,
            position=position,
        )
        return {"redacts": event.redacts}

    async def _line(
        self, after: Ids, present: Mapping[StateKey, str], previous: dict[str, Known], position: int
    ) -> int:
        """The state line on which the state after the event stands at its position."""
        if after == present:
            return 0
        if self.event.state_key is None:
            for known in previous.values():
                # A line does not change after it begins, so a message may stand on it as well.
                if known.line and await self._state_after(known.line, known.position) == after:
                    return known.line
        cursor = await self.connection.execute(
            "select coalesce(max(line), 0) + 1 from roomserver.lines where room = %s", [self.room.nid]
        )
        row = await cursor.fetchone()
        assert row is not None
        line = int(row[0])
        self.effects.add("lines", room=self.room.nid, line=line, base_position=position)
        differing = sorted(key for key in after.keys() | present.keys() if after.get(key) != present.get(key))
        for key in differing:
            value = None
            if key in after:
                event = await self._event(after[key])
                value = (self.entries[event.event_id], event)
            self.effects.set_state(self.room, line, key, position, value, existed=False)
        return line

    def _record(self, position: int, purpose: str, resolution: Resolution, branches: list[str]) -> None:
        if resolution.trivial:
            return
        account = resolution.record()
        conflicts = account.pop("conflicts")
        self.effects.add(
            "resolutions",
            room=self.room.nid,
            position=position,
            purpose=purpose,
            algorithm=resolution.algorithm,
            inputs=orjson.dumps({"branches": branches, "conflicts": conflicts}).decode(),
            outcome=orjson.dumps(account).decode(),
        )
