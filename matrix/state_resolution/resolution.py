"""What a resolution is given and what it says.

A `Resolution` is a value: the resolved state and, beside it, everything that decided it, so that a room server can
store why a room's state changed. Which keys are in conflict is decided per algorithm (v1 and v2 define it
differently).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MissingEvents", "Resolution", "StateKey", "StateMap"]

StateKey = tuple[str, str]
"""(event type, state key)."""

StateMap = Mapping[StateKey, str]
"""A room state: the event id at each (event type, state key)."""


class MissingEvents(LookupError):
    """Events that the resolution reads were not among those handed to it; `event_ids` names them."""

    def __init__(self, event_ids: frozenset[str]) -> None:
        super().__init__(f"{len(event_ids)} events are needed and were not given: {', '.join(sorted(event_ids)[:3])}…")
        self.event_ids = event_ids


@dataclass(frozen=True, slots=True)
class Resolution:
    """The resolved state of several states, and how it came about."""

    algorithm: str
    """`1`, `2` or `2.1`."""
    state: dict[StateKey, str]
    """The resolved state."""
    conflicted: dict[StateKey, tuple[str, ...]] = field(default_factory=dict)
    """The keys in conflict, and at each the event ids that compete, sorted."""
    auth_difference: frozenset[str] = frozenset()
    """Events that are in some auth chains but not in all, without those in `conflicted` (v2 and later)."""
    conflicted_subgraph: frozenset[str] = frozenset()
    """Events on an auth path from one conflicted event to another, without those in `conflicted` (v2.1)."""
    power_events: tuple[str, ...] = ()
    """What was replayed first, in order: reverse topological power ordering (v2 and later)."""
    remaining_events: tuple[str, ...] = ()
    """What was replayed next, in order: mainline ordering in v2 and later; in v1, all conflicting events in passes."""
    refused: dict[str, str] = field(default_factory=dict)
    """Events that the authorisation rules did not let into the state, each with the reason."""

    @property
    def full_conflicted_set(self) -> frozenset[str]:
        """Every event that took part: the conflicted ones, the auth difference and the conflicted subgraph."""
        competing = frozenset(event_id for event_ids in self.conflicted.values() for event_id in event_ids)
        return competing | self.auth_difference | self.conflicted_subgraph

    @property
    def trivial(self) -> bool:
        """Whether nothing was in conflict, so that there is nothing to record."""
        return not self.conflicted

    def record(self) -> dict[str, Any]:
        """The account of this resolution as a JSON object: what was in conflict, the order of replay, the outcome."""
        return {
            "algorithm": self.algorithm,
            "conflicts": [
                {"type": key[0], "state_key": key[1], "candidates": list(candidates), "winner": self.state.get(key)}
                for key, candidates in sorted(self.conflicted.items())
            ],
            "auth_difference": sorted(self.auth_difference),
            "conflicted_subgraph": sorted(self.conflicted_subgraph),
            "power_events": list(self.power_events),
            "remaining_events": list(self.remaining_events),
            "refused": dict(sorted(self.refused.items())),
        }
