"""What is unread in a room for one user, per thread.

Invariant: a counter is as of its position; who moves it counts each event after that once.
Source: client-server API, "Receiving notifications".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from matrix.relations import MAIN


@dataclass(slots=True)
class Counter:
    """The unread counts of a user in a room as of a position.

    `read` gives by thread ("" for unthreaded receipts) the timeline order up to which events are read, `counts` by thread the
    notifications and highlights beyond.
    """

    position: int
    read: dict[str, int]
    display_name: str | None = None
    counts: dict[str, list[int]] = field(default_factory=dict)

    def is_read(self, thread: str, timeline: int) -> bool:
        """Whether an event is read already."""
        return timeline <= max(self.read.get("", 0), self.read.get(thread, 0))

    def add(self, thread: str, highlight: bool) -> None:
        """Counts an event."""
        counts = self.counts.setdefault(thread, [0, 0])
        counts[0] += 1
        counts[1] += highlight

    def render(self, threads: bool) -> bytes:
        """The members unread_notifications and, by threads, unread_thread_notifications."""
        if not threads:
            return _counts(b"unread_notifications", [sum(c) for c in zip(*self.counts.values(), strict=True)] or [0, 0])
        parts = [_counts(b"unread_notifications", self.counts.get(MAIN, [0, 0]))]
        inner = [_counts(orjson.dumps(root)[1:-1], c) for root, c in self.counts.items() if root != MAIN]
        if inner:
            parts.append(b'"unread_thread_notifications":{%b}' % b",".join(inner))
        return b",".join(parts)


def _counts(name: bytes, counts: list[int]) -> bytes:
    return b'"%b":{"highlight_count":%d,"notification_count":%d}' % (name, counts[1], counts[0])
