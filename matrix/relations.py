"""What an event relates to, and the thread it is in.

Source: client-server API, "Forming relationships between events", "Threading", "Threaded read receipts".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from matrix.identifiers import is_event_id

__all__ = ["HOPS", "MAIN", "THREAD", "relation_of", "thread_of"]

MAIN: Final = "main"
"""What stands for the thread of events that are in none."""

THREAD: Final = "m.thread"

HOPS: Final = 3
"""Relations followed to find an event's thread: "a maximum of 3 hops is recommended"."""


def relation_of(content: Any) -> tuple[str, str] | None:
    """(rel_type, event id) that a content relates to; None also for what can be no event's id."""
    relation = content.get("m.relates_to") if isinstance(content, dict) else None
    if not isinstance(relation, dict):
        return None
    kind, target = relation.get("rel_type"), relation.get("event_id")
    return (kind, target) if isinstance(kind, str) and isinstance(target, str) and is_event_id(target) else None


def thread_of(content: Any, find: Callable[[str], Any]) -> str | None:
    """The thread an event is in: its root's id, or `main`; None when an event on the way is not at hand.

    `find` gives the content of an event by id, None when it is not at hand, and an empty object when there is none.
    """
    for hop in range(HOPS + 1):
        relation = relation_of(content)
        if relation is None:
            return MAIN
        kind, target = relation
        if kind == THREAD:
            return target
        if hop == HOPS:
            return MAIN
        content = find(target)
        if content is None:
            return None
    return MAIN
