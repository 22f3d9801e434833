"""Log entries as the room server takes them: from the slot, or from the table when catching up.

Invariant: both ways give the same `Entry`, so that nothing behind this module knows which one it was.
"""

from __future__ import annotations

from typing import NamedTuple

from eventlog.pgoutput import Column, Row

TABLE = ("eventlog", "events")
COLUMNS = ("id", "kind", "local", "seq", "event_id", "room_id", "type", "state_key", "sender", "json")
WANTED = {TABLE: tuple(Column(name) for name in COLUMNS)}


class Entry(NamedTuple):
    """One row of eventlog.events: kind s (state), m (other room event) or u (an entry of a user)."""

    id: int
    kind: str
    local: bool
    seq: int | None
    event_id: str | None
    room_id: str | None
    type: str
    state_key: str | None
    sender: str
    json: str


def from_row(row: Row) -> Entry:
    """The entry of a decoded row."""
    return Entry(*row.values)
