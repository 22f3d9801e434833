"""HTTP/1.1 on a connection: uvicorn's protocol, which sends a response's head and body in one piece.

Invariant: the bytes and their order are uvicorn's; a head is held back until the body comes, at most until the loop's next turn. In
two pieces a client is woken twice, and the second piece waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_JOINED: Final = 65_536
"""Bytes of a body that are copied behind its head; a longer one is written by itself."""


CLOSING_SECONDS: Final = 30.0
"""How long what was written before the end of a connection may wait for its reader."""


class Corked:
    """A transport that holds a response's head back for its body."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def write(self, data: bytes) -> None:
        """Writes now, or with what comes next."""
        head, self._head = self._head, b""
        if not head and data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
        elif len(data) <= MOST_JOINED:
            self._transport.write(head + data)
        else:
            self._transport.write(head)
            self._transport.write(data)

    def close(self) -> None:
        """Closes once everything is written, or after a while: somebody who takes nothing would keep it for ever."""
        self._flush()
        self._transport.close()
        self._loop.call_later(CLOSING_SECONDS, self._transport.abort)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(Corked(transport))  # type: ignore[arg-type]
