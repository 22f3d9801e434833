"""Synapse's opinion of a state resolution. Runs in the environment of `peer_environment`, where nothing of ours is.

Reads JSON lines and writes one for each that asks something:

    {"room_version": "10", "room_id": "!…"}                begins a room
    {"pdu": {…}, "event_id": "$…", "rejected": false}      adds an event to it
    {"state_sets": [["$…", …], …], "persisted": true}      asks: state sets as lists of event ids

The answer is the sorted list of event ids of the resolved state. With `persisted` the auth chains are read from a store
that is a dictionary here; without it, Synapse is told that no event is stored yet and works out auth difference and
conflicted subgraph by its own code alone, which takes exponential time and is for small rooms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Coroutine, Iterable
from typing import Any

import synapse.event_auth  # noqa: F401  (first, since synapse.state cannot be imported before it)
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference


class Clock:
    async def sleep(self, duration: object) -> None:
        """Nothing else runs here."""


class Store:
    """The events of a room, answering as Synapse's database does."""

    def __init__(self, room_version: str, room_id: str) -> None:
        self.room_version = KNOWN_ROOM_VERSIONS[room_version]
        self.room_id = room_id
        self.events: dict[str, Any] = {}

    def add(self, pdu: dict[str, Any], event_id: str, rejected: bool) -> None:
        reason = "rejected" if rejected else None
        event = make_event_from_dict(pdu, room_version=self.room_version, rejected_reason=reason)
        assert event.event_id == event_id, (event.event_id, event_id)
        self.events[event_id] = event

    async def get_events(self, event_ids: Iterable[str], allow_rejected: bool = False) -> dict[str, Any]:
        found = {event_id: self.events[event_id] for event_id in event_ids if event_id in self.events}
        if allow_rejected:
            return found
        return {event_id: event for event_id, event in found.items() if event.rejected_reason is None}

    def chain(self, event_ids: Iterable[str]) -> set[str]:
        """The events with everything that is reachable from them by auth events."""
        reached: set[str] = set()
        pending = list(event_ids)
        while pending:
            event_id = pending.pop()
            if event_id not in reached:
                reached.add(event_id)
                pending.extend(self.events[event_id].auth_event_ids())
        return reached

    async def get_auth_chain_difference(
        self,
        room_id: str,
        state_sets: list[set[str]],
        conflicted_set: set[str] | None,
        additional_backwards_reachable_conflicted_events: set[str] | None,
    ) -> StateDifference:
        chains = [self.chain(state_set) for state_set in state_sets]
        difference = set.union(*chains) - set.intersection(*chains)
        subgraph: set[str] | None = None
        if conflicted_set is not None:
            # Reachable from a conflicted event, and reaching one: the latter spreads until nothing is added.
            below = self.chain(conflicted_set)
            subgraph = set(conflicted_set)
            spreading = True
            while spreading:
                reaching = {
                    each for each in below - subgraph if not subgraph.isdisjoint(self.events[each].auth_event_ids())
                }
                subgraph |= reaching
                spreading = bool(reaching)
        return StateDifference(auth_difference=difference, conflicted_subgraph=subgraph)

    def resolve(self, state_sets: list[list[str]], persisted: bool) -> Collection[str]:
        states = [
            {(self.events[event_id].type, self.events[event_id].state_key): event_id for event_id in state_set}
            for state_set in state_sets
        ]
        if self.room_version.identifier == "1":
            return run(
                v1.resolve_events_with_store(self.room_id, self.room_version, states, None, self.get_events)
            ).values()
        event_map = None if persisted else dict(self.events)
        return run(
            v2.resolve_events_with_store(Clock(), self.room_id, self.room_version, states, event_map, self)
        ).values()


def run(coroutine: Coroutine[Any, Any, dict[Any, str]]) -> dict[Any, str]:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("Synapse waits for something.")


def main() -> None:
    store: Store | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if "room_version" in message:
            store = Store(message["room_version"], message["room_id"])
            continue
        assert store is not None
        if "pdu" in message:
            store.add(message["pdu"], message["event_id"], message["rejected"])
        else:
            print(json.dumps(sorted(store.resolve(message["state_sets"], message["persisted"]))), flush=True)


if __name__ == "__main__":
    main()
