"""Logical messages that a subscriber sends itself through the server: the only honest probe of the whole way.

Invariant: at most one heartbeat is under way; late under backlog is no fault, only one that is late while nothing else comes
either. Everything a database writes passes every slot, so each subscriber sees the heartbeats of all and knows its own.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

PREFIX: Final = "walden.heartbeat"
"""Of the messages; they are never handed out."""
EMIT_SECONDS: Final = 30.0
"""How long sending one may take; an fsync elsewhere on the disk was seen to hold up a server for 13 s."""

Emit = Callable[[bytes], Awaitable[object]]
"""Runs pg_logical_emit_message(false, PREFIX, payload) over a connection that is not the stream's."""

_log: Final = structlog.get_logger(__name__)


class Heartbeat:
    """Sends and recognises the heartbeats of one subscriber."""

    def __init__(self, emit: Emit, every: float) -> None:
        self.seconds: float | None = None
        """How long the last one took to come round."""
        self._emit = emit
        self._every = every
        self._payload: bytes | None = None
        self._sent_at = 0.0

    async def run(self) -> None:
        """Send one every so often, unless one is under way; what hinders sending is logged and tried again."""
        while True:
            if self._payload is None:
                self._payload, self._sent_at = secrets.token_bytes(16), time.monotonic()
                try:
                    async with asyncio.timeout(EMIT_SECONDS):
                        await self._emit(self._payload)
                except Exception as error:
                    # Whatever is wrong with the other connection, the stream goes on without being probed.
                    self.forget()
                    _log.warning("heartbeat not sent", error=str(error))
            await asyncio.sleep(self._every)

    def returned(self, payload: bytes) -> None:
        """Take a heartbeat that came round, ours or another's."""
        if payload == self._payload:
            self.seconds = time.monotonic() - self._sent_at
            self._payload = None

    def forget(self) -> None:
        """The one under way may never arrive: the connection it would have come by is gone."""
        self._payload = None

    def waited(self, now: float) -> float:
        """Seconds since the one under way was sent; 0 if there is none. `now` is monotonic."""
        return 0.0 if self._payload is None else now - self._sent_at
