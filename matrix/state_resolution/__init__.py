"""State resolution: the state of a room after several branches of its history, for every room version.

Pure: whoever calls hands over the events. `missing_auth_events` says which ones are lacking, a few levels of the auth
chains at a time, and once it says none, `resolve` needs no other:

    while missing := missing_auth_events(room_version, state_sets, events):
        events.update(load(missing))
    resolution = resolve(room_version, state_sets, events)

Handing over more events than are read costs nothing and saves rounds: the room's power levels, say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrix.events import Event
from matrix.room_versions import RoomVersion, StateResolution
from matrix.state_resolution import v1, v2
from matrix.state_resolution.resolution import MissingEvents, Resolution, StateKey, StateMap

__all__ = ["MissingEvents", "Resolution", "StateKey", "StateMap", "missing_auth_events", "resolve"]


def resolve(room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]) -> Resolution:
    """Resolve the states after the previous events of an event, or after the forward extremities of a room.

    `state_sets` are maps from (event type, state key) to event id, of one room, in any order; `events` has, by event
    id, at least those that `missing_auth_events` asks for. Events that a state names must have passed auth against
    their own auth events; whether they were rejected against the state before them plays no part (specification,
    "Rejected events").

    Returns the resolved state with an account of how it came about. No states resolve to the empty state, and states
    that are all equal to themselves. Raises `MissingEvents`.
    """
    distinct = _distinct(state_sets)
    if len(distinct) < 2:
        state = dict(distinct[0]) if distinct else {}
        return Resolution(algorithm=room_version.state_resolution.value, state=state)
    if room_version.state_resolution is StateResolution.V1:
        return v1.resolve(room_version, distinct, events)
    return v2.resolve(room_version, distinct, events)


def missing_auth_events(
    room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]
) -> frozenset[str]:
    """The ids of events that `resolve` would read next and that are not among `events`; empty if it has all it needs.

    What an absent event refers to is only known once it is there, so ask again after loading. Events that nobody has
    are asked for again: the caller bounds the rounds.
    """
    distinct = _distinct(state_sets)
    if len(distinct) < 2:
        return frozenset()
    if room_version.state_resolution is StateResolution.V1:
        return v1.missing_events(room_version, distinct, events)
    return v2.missing_events(room_version, distinct, events)


def _distinct(state_sets: Sequence[StateMap]) -> list[StateMap]:
    distinct: list[StateMap] = []
    for state in state_sets:
        if state not in distinct:
            distinct.append(state)
    return distinct
