"""State resolution of room versions 2 to 11 (v2) and 12 (v2.1): one algorithm, two named switches.

The result depends only on the set of states and on the events, never on the order in which they are given. The comments
paraphrase the specification's sentences, in its order. Source: room versions 2 and 12, "State resolution"
(specification v1.19); MSC1442 and MSC4297 give the reasons.

Where the letter of the specification differs from what Synapse and ruma agree on, the code follows the servers and says
so: a room in which two servers resolve differently has split.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from matrix.auth_rules import AuthError, check_against_state
from matrix.events import Event
from matrix.power_levels import BadPowerLevel, PowerLevels
from matrix.room_versions import RoomVersion, StateResolution
from matrix.state_resolution.auth_chains import (
    CREATE,
    EventReader,
    create_event_id,
    needed_keys,
    not_below,
    read_auth_graph,
)
from matrix.state_resolution.resolution import Resolution, StateKey, StateMap

__all__ = ["V2Rules", "missing_events", "resolve"]

POWER_LEVELS: StateKey = ("m.room.power_levels", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")


@dataclass(frozen=True, slots=True)
class V2Rules:
    """What MSC4297 changed, as rules."""

    replay_begins_with_empty_state: bool
    """The first iterative auth checks start from an empty state map, not from the unconflicted one."""
    conflicted_subgraph_takes_part: bool
    """The conflicted state subgraph belongs to the full conflicted set."""


RULES: Mapping[StateResolution, V2Rules] = {
    StateResolution.V2: V2Rules(replay_begins_with_empty_state=False, conflicted_subgraph_takes_part=False),
    StateResolution.V2_1: V2Rules(replay_begins_with_empty_state=True, conflicted_subgraph_takes_part=True),
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """The definitions of the specification, worked out for some states."""

    unconflicted: dict[StateKey, str]
    conflicted: dict[StateKey, set[str]]
    auth_difference: frozenset[str]
    conflicted_subgraph: frozenset[str]
    full_conflicted_set: frozenset[str]


def resolve(room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]) -> Resolution:
    """Resolve states that differ. Raises `MissingEvents` if `events` lacks one that is read."""
    rules = RULES[room_version.state_resolution]
    reader = EventReader(events)
    conflict = find_conflict(rules, state_sets, reader)
    reader.check()
    refused: dict[str, str] = {}

    # 1. X is every power event of the full conflicted set, and with each of them the events of its auth chain that
    #    are in the full conflicted set. Sort X by reverse topological power ordering.
    power_events = power_ordering(conflict.full_conflicted_set, reader)

    # 2. Iterative auth checks over X, starting from the unconflicted state map (v2.1: from an empty one), give a
    #    partially resolved state.
    state = {} if rules.replay_begins_with_empty_state else dict(conflict.unconflicted)
    check_iteratively(power_events, state, reader, refused)

    # 3. Order all remaining events by the mainline ordering based on the power levels of the partially resolved state.
    remaining = conflict.full_conflicted_set.difference(power_events)
    remaining_events = mainline_ordering(remaining, state.get(POWER_LEVELS), reader)

    # 4. Iterative auth checks over those, on the partially resolved state.
    check_iteratively(remaining_events, state, reader, refused)

    # 5. Whatever is unconflicted replaces what has come to stand at its key.
    state.update(conflict.unconflicted)

    reader.check()
    return Resolution(
        algorithm=room_version.state_resolution.value,
        state=state,
        conflicted={key: tuple(sorted(event_ids)) for key, event_ids in conflict.conflicted.items()},
        auth_difference=conflict.auth_difference,
        conflicted_subgraph=conflict.conflicted_subgraph,
        power_events=tuple(power_events),
        remaining_events=tuple(remaining_events),
        refused=refused,
    )


def missing_events(
    room_version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Event]
) -> frozenset[str]:
    """The event ids, as far as they can be told, that `resolve` would read and `events` lacks."""
    rules = RULES[room_version.state_resolution]
    reader = EventReader(events)
    conflict = find_conflict(rules, state_sets, reader)
    if not reader.missing and conflict.conflicted:
        for event_id in conflict.full_conflicted_set:
            event = reader.require(event_id)
            if room_version.room_id_is_create_event_id:
                reader.get(create_event_id(event))
            if not rules.replay_begins_with_empty_state:
                for key in needed_keys(event):
                    unconflicted = conflict.unconflicted.get(key)
                    if unconflicted is not None:
                        reader.get(unconflicted)
        if not rules.replay_begins_with_empty_state and POWER_LEVELS in conflict.unconflicted:
            mainline(conflict.unconflicted[POWER_LEVELS], reader)
    return frozenset(reader.missing)


def find_conflict(rules: V2Rules, state_sets: Sequence[StateMap], events: EventReader) -> Conflict:
    """What is in conflict, and what takes part in resolving it. Incomplete if `events.missing` is not empty afterwards."""
    # A key that every state has with the same value is in the unconflicted state map. The values of any other key are
    # in the conflicted state set: absence from one state is a conflict too.
    unconflicted = dict(state_sets[0])
    for state in state_sets[1:]:
        unconflicted = {key: event_id for key, event_id in unconflicted.items() if state.get(key) == event_id}
    conflicted: dict[StateKey, set[str]] = {}
    memberships: dict[str, int] = {}
    for index, state in enumerate(state_sets):
        for key, event_id in state.items():
            if key not in unconflicted:
                conflicted.setdefault(key, set()).add(event_id)
                memberships[event_id] = memberships.get(event_id, 0) | 1 << index
    competing = frozenset(memberships)

    # The auth chain of a state is the union of the auth chains of its events; the auth difference is every event that
    # does not appear in every auth chain.
    #
    # The chain of a state is taken with the state's own events. By the letter they are left out, so that an unconflicted
    # event which nothing else in some state cites would be replayed. Synapse counts them in, and in generated rooms one
    # merge in fifty would come out differently, so the code follows it.
    everywhere = (1 << len(state_sets)) - 1
    memberships |= dict.fromkeys(unconflicted.values(), everywhere)
    graph = read_auth_graph(competing, events)
    difference = graph.not_in_every_chain(memberships, everywhere) - competing
    if difference and not events.missing:
        difference = not_below(difference, unconflicted.values(), events)

    # v2.1: The conflicted state subgraph is the union of all paths of auth events between any two events of the
    # conflicted state set, endpoints included.
    subgraph = graph.between(competing) if rules.conflicted_subgraph_takes_part else frozenset()

    # The full conflicted set is the union of the conflicted state set, the auth difference (v2.1: and the subgraph).
    return Conflict(
        unconflicted=unconflicted,
        conflicted=conflicted,
        auth_difference=frozenset(difference),
        conflicted_subgraph=subgraph - competing,
        full_conflicted_set=competing | difference | subgraph,
    )


def is_power_event(event: Event) -> bool:
    """Whether the event might take away someone's ability to do something in the room."""
    # A power event is a state event of type m.room.power_levels or m.room.join_rules, or an m.room.member whose
    # membership is leave or ban and whose sender is not its state key.
    #
    # The letter takes those types with any state key, and not m.room.create; Synapse and ruma take the empty state key
    # only, since no other has an effect, and m.room.create.
    key = (event.type, event.state_key)
    if event.type == "m.room.member":
        return event.content.get("membership") in ("leave", "ban") and event.sender != event.state_key
    return key in (POWER_LEVELS, JOIN_RULES, CREATE)


def power_ordering(full_conflicted_set: Collection[str], events: EventReader) -> list[str]:
    """Step 1: the power events with what they depend on, by reverse topological power ordering (earliest first)."""
    # The events of a power event's auth chain are reached along auth events that are in the full conflicted set
    # themselves, as in Synapse and ruma.
    below: dict[str, list[str]] = {}
    stack = [event_id for event_id in full_conflicted_set if is_power_event(events.require(event_id))]
    while stack:
        event_id = stack.pop()
        if event_id not in below:
            auth_event_ids = events.require(event_id).auth_events
            below[event_id] = [each for each in dict.fromkeys(auth_event_ids) if each in full_conflicted_set]
            stack.extend(below[event_id])

    # x comes before y if its sender has the greater power level, by the auth events of each; or the powers are equal
    # and its origin_server_ts is less; or these are equal too and its event id is less.
    precedence: dict[str, tuple[float, int, str]] = {}
    for event_id in below:
        event = events.require(event_id)
        precedence[event_id] = (-sender_power(event, events), event.origin_server_ts, event_id)

    # Kahn's algorithm, choosing the smallest of all candidates at each step.
    above: dict[str, list[str]] = {event_id: [] for event_id in below}
    blockers: dict[str, int] = {}
    for event_id, blocking in below.items():
        blockers[event_id] = len(blocking)
        for auth_event_id in blocking:
            above[auth_event_id].append(event_id)
    candidates = [precedence[event_id] for event_id, count in blockers.items() if not count]
    heapq.heapify(candidates)
    ordered: list[str] = []
    while candidates:
        event_id = heapq.heappop(candidates)[2]
        ordered.append(event_id)
        for dependent in above[event_id]:
            blockers[dependent] -= 1
            if not blockers[dependent]:
                heapq.heappush(candidates, precedence[dependent])
    return ordered


def sender_power(event: Event, events: EventReader) -> float:
    """The power level that the auth events of an event, alone, give to its sender."""
    own = own_auth_events(event, events)
    create = event if event.type == "m.room.create" else own.get(CREATE)
    if create is None:
        return 0
    try:
        return PowerLevels(create, own.get(POWER_LEVELS)).of_user(event.sender)
    except BadPowerLevel:
        # Levels that the rules of old room versions do not look at before they are in force.
        return 0


def own_auth_events(event: Event, events: EventReader) -> dict[StateKey, Event]:
    """The auth events that an event names by their keys, without rejected ones, and the create event of its room."""
    own: dict[StateKey, Event] = {}
    for auth_event_id in event.auth_events:
        auth_event = events.require(auth_event_id)
        if not auth_event.rejected and auth_event.state_key is not None:
            own[auth_event.type, auth_event.state_key] = auth_event
    if event.room_version.room_id_is_create_event_id and event.type != "m.room.create":
        own[CREATE] = events.require(create_event_id(event))
    return own


def mainline(power_levels_id: str | None, events: EventReader) -> dict[str, int]:
    """The mainline of a power-levels event: P0, the power levels in its auth events P1, and so on, with their indexes."""
    positions: dict[str, int] = {}
    while power_levels_id is not None and power_levels_id not in positions:
        positions[power_levels_id] = len(positions)
        power_levels_id = power_levels_before(power_levels_id, events)
    return positions


def power_levels_before(event_id: str, events: EventReader) -> str | None:
    """The id of the m.room.power_levels event in the auth events of an event."""
    event = events.get(event_id)
    for auth_event_id in () if event is None else event.auth_events:
        auth_event = events.get(auth_event_id)
        if auth_event is not None and (auth_event.type, auth_event.state_key) == POWER_LEVELS:
            return auth_event_id
    return None


def mainline_ordering(event_ids: Iterable[str], power_levels_id: str | None, events: EventReader) -> list[str]:
    """Step 3: order events by where their auth chains meet the mainline of the resolved power levels, earliest first."""
    # For an event e = e0, e1 is the m.room.power_levels event in its auth events, and so on. The mainline position of
    # e is the index on the mainline of the first of e1, e2, … that is on it, and infinite if none is.
    positions: dict[str | None, float] = {None: inf}
    positions.update(mainline(power_levels_id, events))

    def position(event_id: str) -> float:
        passed: list[str | None] = []
        at = power_levels_before(event_id, events)
        while at not in positions:
            passed.append(at)
            positions[at] = inf
            at = None if at is None else power_levels_before(at, events)
        for each in passed:
            positions[each] = positions[at]
        return positions[at]

    # x comes before y if its mainline position is greater; or the positions are equal and its origin_server_ts is
    # less; or these are equal too and its event id is less.
    return [
        event_id
        for _, _, event_id in sorted(
            (-position(event_id), events.require(event_id).origin_server_ts, event_id) for event_id in event_ids
        )
    ]


def check_iteratively(
    event_ids: Iterable[str],
    state: dict[StateKey, str],
    events: EventReader,
    refused: dict[str, str],
) -> None:
    """Steps 2 and 4: apply to `state`, in order, the events that the authorisation rules allow; note the others."""
    for event_id in event_ids:
        event = events.require(event_id)
        # If a key that the rules need is not in the state, the event's own auth event is used, unless that was
        # rejected.
        own: dict[StateKey, Event] | None = None
        auth_state: dict[StateKey, Event] = {}
        for key in needed_keys(event):
            current = state.get(key)
            if current is not None:
                auth_state[key] = events.require(current)
                continue
            if own is None:
                own = own_auth_events(event, events)
            if key in own:
                auth_state[key] = own[key]
        # If the rules allow the event, it is applied to the state; otherwise it is ignored.
        try:
            check_against_state(event, auth_state)
        except AuthError as error:
            refused[event_id] = str(error)
        else:
            state[event.type, event.state_key or ""] = event_id
