"""How far a subscriber is. LSNs are integers (bytes of WAL)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Where a subscriber is, for metrics and `walden status`; changes as it runs."""

    received: int = 0
    """End of the last commit or message received."""
    delivered: int = 0
    """End of the last batch handed out."""
    confirmed: int = 0
    """What the server may forget."""
    server_end: int = 0
    """How far the server says it has read its WAL for us; nothing before it is still to come."""
    heartbeat_seconds: float | None = None
    """How long the last heartbeat took to come round."""
    reconnects: int = 0
