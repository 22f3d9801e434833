"""State resolution of room version 1.

Known to reset state, and kept exactly as it is: rooms of version 1 exist. The comments paraphrase the specification's
sentences, in its order. Source: room version 1, "State resolution" (specification v1.19). Where it is silent, the code
does what Synapse, from which the text was written down, does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha1

from matrix.auth_rules import AuthError, check_against_state
from matrix.events import Event
from matrix.room_versions import RoomVersion
from matrix.state_resolution.auth_chains import EventReader, needed_keys
from matrix.state_resolution.resolution import Resolution, StateKey, StateMap

__all__ = ["missing_events", "resolve"]

PASSES: Sequence[Callable[[StateKey], bool]] = (
    lambda key: key == ("m.room.power_levels", ""),
    lambda key: key[0] == "m.room.join_rules",
    lambda key: key[0] == "m.room.member",
)
"""The kinds of conflict that are resolved one after the other, before all others."""


def resolve(room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]) -> Resolution:
    """Resolve states that differ. Raises `MissingEvents` if `events` lacks one that is read."""
    reader = EventReader(events)
    # R starts as the union of the states, without the conflicting events.
    resolved, conflicted = separate(state_sets)
    pending = dict(conflicted)
    considered: list[str] = []
    refused: dict[str, str] = {}

    # First the conflicts between power levels, then those between join rules, then those between memberships. The
    # outcomes of one pass are added to R together: the conflicts of a pass do not see each other's.
    for belongs in PASSES:
        keys = sorted(filter(belongs, pending))
        outcomes: dict[StateKey, str] = {}
        for key in keys:
            ordered = by_depth(pending.pop(key), reader)
            considered += [event.event_id for event in ordered]
            outcomes[key] = last_allowed(ordered, key, resolved, reader, refused)
        resolved.update(outcomes)

    # For all other conflicts: of the events that pass authentication in R, the one with the highest depth and the
    # lowest sha1(event_id).
    outcomes = {}
    for key in sorted(pending):
        ordered = by_depth(pending[key], reader)
        considered += [event.event_id for event in reversed(ordered)]
        outcomes[key] = deepest_allowed(ordered, resolved, reader, refused)
    resolved.update(outcomes)

    return Resolution(
        algorithm=room_version.state_resolution.value,
        state=resolved,
        conflicted={key: tuple(sorted(event_ids)) for key, event_ids in conflicted.items()},
        remaining_events=tuple(considered),
        refused=refused,
    )


def missing_events(
    room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]
) -> frozenset[str]:
    """The event ids, as far as they can be told, that `resolve` would read and `events` lacks."""
    reader = EventReader(events)
    unconflicted, conflicted = separate(state_sets)
    for event_ids in conflicted.values():
        for event_id in event_ids:
            event = reader.get(event_id)
            if event is not None:
                for key in needed_keys(event):
                    if key in unconflicted:
                        reader.get(unconflicted[key])
    return frozenset(reader.missing)


def separate(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, str], dict[StateKey, set[str]]]:
    """The unconflicted state and the conflicts."""
    # A conflict is between states that have different event ids for the same key; absence is none.
    unconflicted: dict[StateKey, str] = {}
    conflicted: dict[StateKey, set[str]] = {}
    for state in state_sets:
        for key, event_id in state.items():
            first = unconflicted.setdefault(key, event_id)
            if first != event_id:
                conflicted.setdefault(key, {first}).add(event_id)
    for key in conflicted:
        del unconflicted[key]
    return unconflicted, conflicted


def by_depth(event_ids: Iterable[str], events: EventReader) -> list[Event]:
    """Events by ascending depth, then descending sha1(event_id)."""
    # Reversed after sorting by descending depth and ascending hash, since the hash is what cannot be negated.
    found = sorted(
        (events.require(event_id) for event_id in event_ids),
        key=lambda event: (
            -event.depth,
            sha1(event.event_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest(),
        ),
    )
    return found[::-1]


def last_allowed(
    ordered: Sequence[Event], key: StateKey, resolved: StateMap, events: EventReader, refused: dict[str, str]
) -> str:
    """The outcome of a conflict in one of the passes."""
    # Add the first event of the list to R. Update R with each following one that the rules allow in R, and stop at the
    # first that they do not allow.
    current = ordered[0]
    for event in ordered[1:]:
        try:
            check_against_state(event, state_for(event, resolved, events) | {key: current})
        except AuthError as error:
            refused[event.event_id] = str(error)
            break
        current = event
    return current.event_id


def deepest_allowed(ordered: Sequence[Event], resolved: StateMap, events: EventReader, refused: dict[str, str]) -> str:
    """The outcome of any other conflict. If the rules allow none of the events, the one with the lowest depth."""
    for event in reversed(ordered):
        try:
            check_against_state(event, state_for(event, resolved, events))
        except AuthError as error:
            refused[event.event_id] = str(error)
        else:
            return event.event_id
    return ordered[0].event_id


def state_for(event: Event, resolved: StateMap, events: EventReader) -> dict[StateKey, Event]:
    """The part of R that the authorisation rules read for an event."""
    return {key: events.require(resolved[key]) for key in needed_keys(event) if key in resolved}
