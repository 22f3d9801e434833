"""Rooms in which some servers do what they should not, and what the specification says a server makes of their events.

Beside what `RoomDag` does, events are built on rejected ones, cite old auth events, and name several previous events at random.
`Judgement` is the plain recomputation: events in the order in which they come, whole states, nothing remembered but what it says.
Source: server-server API, "Checks performed on receipt of a PDU", "Rejection", "Soft failure".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from matrix.auth_rules import AuthError, auth_event_keys, check_against_state, check_event_alone
from matrix.events import Event
from matrix.state_resolution import resolve
from tests.matrix.room_dag import RoomDag, State, StateKey


class WildDag(RoomDag):
    """A room that grows wildly. `state_after` has the state after rejected events as well: that before them."""

    def _send(self, server: str, sender: str, type: str, state_key: str | None, content: dict[str, Any]) -> None:
        chance = self.random.random
        prev_events = sorted(self.extremities[server])
        if len(self.events) > 30 and chance() < 0.15:
            some = sorted(self.known[server])
            prev_events = sorted({self.random.choice(some) for _ in range(self.random.randrange(1, 4))})
        state = self.state_before(prev_events[:20]) if prev_events else {}
        selected: State = state
        if len(self.events) > 30 and chance() < 0.1:
            selected = self.state_after[self.random.choice(sorted(self.known[server]))]
        keys = auth_event_keys(type, sender, state_key, content, self.room_version)
        auth_events = [selected[key] for key in keys if key in selected]
        event = self._event(server, sender, type, state_key, content, prev_events[:20], auth_events)
        if event.event_id in self.events:
            return
        event.rejected = is_rejected(event, state, self.events)
        if event.rejected and chance() > 0.3:
            return
        self.events[event.event_id] = event
        changes = state_key is not None and not event.rejected
        self.state_after[event.event_id] = (
            {**state, (type, state_key or ""): event.event_id} if changes else dict(state)
        )
        # Whoever made a rejected event may build on it.
        if not event.rejected or chance() < 0.5:
            self.known[server].add(event.event_id)
            self.extremities[server] = self.extremities[server].difference(prev_events) | {event.event_id}


def is_rejected(event: Event, before: State, events: Mapping[str, Event]) -> bool:
    """Checks 4 and 5."""
    named: dict[StateKey, Event] = {}
    for event_id in event.auth_events:
        named[events[event_id].type, events[event_id].state_key or ""] = events[event_id]
    create = before.get(("m.room.create", ""))
    if create is not None:
        named.setdefault(("m.room.create", ""), events[create])
    try:
        check_event_alone(event, events)
        check_against_state(event, named)
        check_against_state(event, {key: events[event_id] for key, event_id in before.items()})
    except AuthError:
        return True
    return False


class Judgement:
    """What is to become of a room's events, given in the order in which they come."""

    def __init__(self, dag: RoomDag, order: Iterable[Event]) -> None:
        self.dag = dag
        self.verdicts: dict[str, str] = {}
        self.extremities: set[str] = set()
        self.current: dict[StateKey, str] = {}
        self.current_after: dict[str, dict[StateKey, str]] = {}
        self.followed_behind = False
        """Whether an event came that an extremity stood behind, with events between that were not accepted."""
        for event in order:
            self.verdicts[event.event_id] = verdict = self._verdict(event)
            if verdict == "a":
                covered = self._covered(event)
                self.followed_behind |= not self.extremities.isdisjoint(covered.difference(event.prev_events))
                self.extremities = (self.extremities - covered) | {event.event_id}
                states = [dag.state_after[event_id] for event_id in sorted(self.extremities)]
                self.current = resolve(dag.room_version, states, dag.events).state
            self.current_after[event.event_id] = self.current

    def _verdict(self, event: Event) -> str:
        if event.rejected:
            return "r"
        try:
            check_against_state(event, {key: self.dag.events[event_id] for key, event_id in self.current.items()})
        except AuthError:
            return "s" if event.prev_events else "a"
        return "a"

    def _covered(self, event: Event) -> set[str]:
        """The previous events, and those that they stand for if they can be no extremities themselves."""
        covered: set[str] = set()
        pending = list(event.prev_events)
        while pending:
            event_id = pending.pop()
            if event_id not in covered:
                covered.add(event_id)
                if self.verdicts[event_id] != "a":
                    pending += self.dag.events[event_id].prev_events
        return covered
