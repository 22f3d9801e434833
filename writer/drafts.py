"""What a request wants in the log, before it is an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from eventlog.append import claim_key


@dataclass(slots=True)
class Draft:
    """An event to be built: everything but its place in the room.

    `txn_path` with `txn_id` and the device make the claim that a repeated request is known by.
    """

    room_id: str
    sender: str
    type: str
    content: dict[str, Any]
    state_key: str | None = None
    redacts: str | None = None
    device_id: str | None = None
    txn_id: str | None = None
    txn_path: str | None = None

    def claim(self) -> str | None:
        """Hexadecimal claim of the transaction id; None when the request has none."""
        if self.txn_id is None:
            return None
        return claim_key(self.sender, self.device_id or "", self.txn_path or "", self.txn_id)


class Sent(NamedTuple):
    """An accepted event: its id (empty for a user's entry), its entry and its position in the outputs."""

    event_id: str
    entry: int
    position: int
