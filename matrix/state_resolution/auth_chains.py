"""The auth-event graph below the conflicted events: which events take part in a resolution beyond the conflicted ones.

Nothing here walks the auth chain of a whole state unless it must. An event that some, but not all, auth chains have
is below a conflicted event, because an unconflicted event brings its chain into every state. So the graph is read
downwards from the conflicted events, and the unconflicted ones are walked only if doubtful events are left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matrix.auth_rules import auth_event_keys
from matrix.events import Event
from matrix.state_resolution.resolution import MissingEvents, StateKey

__all__ = ["CREATE", "AuthGraph", "EventReader", "create_event_id", "needed_keys", "not_below", "read_auth_graph"]

CREATE: StateKey = ("m.room.create", "")


class EventReader:
    """The events that a resolution was given, and a note of those that it asked for in vain."""

    __slots__ = ("_events", "missing")

    def __init__(self, events: Mapping[str, Event]) -> None:
        self._events = events
        self.missing: set[str] = set()

    def get(self, event_id: str) -> Event | None:
        """The event, or None after noting that it is missing."""
        event = self._events.get(event_id)
        if event is None:
            self.missing.add(event_id)
        return event

    def require(self, event_id: str) -> Event:
        """The event. Raises `MissingEvents`."""
        event = self._events.get(event_id)
        if event is None:
            raise MissingEvents(frozenset({event_id}))
        return event

    def check(self) -> None:
        """Raise `MissingEvents` if anything was asked for in vain."""
        if self.missing:
            raise MissingEvents(frozenset(self.missing))


@dataclass(frozen=True, slots=True)
class AuthGraph:
    """Some events with all of their auth chains."""

    order: Sequence[str]
    """Event ids, each before those in its auth chain."""
    edges: Mapping[str, Sequence[str]]
    """Event id to the ids of its auth events."""

    def between(self, event_ids: Collection[str]) -> frozenset[str]:
        """All events on auth paths from one of `event_ids` to another, endpoints included.

        The graph must have been read from `event_ids`, so that everything in it is below one of them already.
        """
        leading_there: set[str] = set()
        for event_id in reversed(self.order):
            if event_id in event_ids or not leading_there.isdisjoint(self.edges[event_id]):
                leading_there.add(event_id)
        return frozenset(leading_there)

    def not_in_every_chain(self, memberships: Mapping[str, int], everywhere: int) -> set[str]:
        """The events of this graph that are not, by what this graph shows, in the auth chains of all states.

        `memberships` gives for an event the states that have it as a bitmap, `everywhere` is the bitmap of all states.
        """
        chains = {event_id: memberships.get(event_id, 0) for event_id in self.order}
        for event_id in self.order:
            states = chains[event_id]
            for auth_event_id in self.edges[event_id]:
                chains[auth_event_id] |= states
        return {event_id for event_id, states in chains.items() if states != everywhere}


def read_auth_graph(event_ids: Iterable[str], events: EventReader) -> AuthGraph:
    """The graph of `event_ids` and their auth chains, as far as the reader has them."""
    edges: dict[str, Sequence[str]] = {}
    finished: dict[str, None] = {}
    for start in event_ids:
        stack = [start]
        while stack:
            event_id = stack[-1]
            if event_id not in edges:
                event = events.get(event_id)
                edges[event_id] = below = () if event is None else event.auth_events
                stack.extend(auth_event_id for auth_event_id in below if auth_event_id not in edges)
            else:
                finished.setdefault(event_id)
                stack.pop()
    return AuthGraph(order=tuple(reversed(finished)), edges=edges)


def not_below(doubtful: set[str], tops: Iterable[str], events: EventReader) -> set[str]:
    """Those of `doubtful` that are in no auth chain of `tops`. The walk ends as soon as none is left."""
    left = set(doubtful)
    seen = set(tops)
    stack = list(seen)
    left -= seen
    while stack and left:
        event = events.get(stack.pop())
        if event is None:
            continue
        for auth_event_id in event.auth_events:
            if auth_event_id not in seen:
                seen.add(auth_event_id)
                left.discard(auth_event_id)
                stack.append(auth_event_id)
    return left


def needed_keys(event: Event) -> list[StateKey]:
    """The keys of a state that the authorisation rules read to check an event: its auth event keys, and the create event."""
    keys = auth_event_keys(event.type, event.sender, event.state_key, event.content, event.room_version)
    return keys if event.room_version.create_event_in_auth_events else [CREATE, *keys]


def create_event_id(event: Event) -> str:
    """The id of the create event of an event's room, where the room id is made from it."""
    return "$" + event.room_id[1:]
