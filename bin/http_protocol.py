"""HTTP/1.1 on a connection: uvicorn's protocol, with a response's head and body in one piece, and bounds on who sends nothing.

Invariant: the bytes and their order are uvicorn's; a head is held back until the body comes, at most until the loop's next turn. In
two pieces a client is woken twice, and the second piece waits for it. No connection stays open for a request that does not come, or
whose head does not end; and none is closed on a client that still sends, which would find a reset where its answer was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_JOINED: Final = 65_536
"""Bytes of a body that are copied behind its head; a longer one is written by itself."""


SILENT_SECONDS: Final = 90.0
"""How long a client may send nothing of a request that it has begun, or never does: longer than endpoints wait for a body."""
MOST_HEAD_BYTES: Final = 65_536
"""Bytes of a request line and its headers, before what is read together with their end."""
CLOSING_SECONDS: Final = 30.0
"""How long what was written before the end of a connection may wait for its reader, and what is still sent be thrown away."""


class Corked:
    """A transport that holds a response's head back for its body. `unread` says whether its client has not finished."""

    def __init__(self, transport: asyncio.Transport, unread: Callable[[], bool]) -> None:
        self._transport = transport
        self._unread = unread
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self.lingers = False
        """Whether nothing more is written, and what comes is read for its client's sake alone."""

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
        if self.is_closing():
            return
        self._flush()
        if self._unread():
            self.lingers = True
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()
        self._loop.call_later(CLOSING_SECONDS, self._transport.abort)

    def is_closing(self) -> bool:
        """Whether the connection ends, now or soon."""
        return self.lingers or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport, which is closed when nothing comes."""

    _watch: asyncio.TimerHandle | None = None
    _heard = 0.0
    _head_bytes = 0
    _in_head = False
    _in_body = False
    transport: Corked  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(Corked(transport, lambda: self._in_head or self._in_body))  # type: ignore[arg-type]
        self._heard = self.loop.time()
        self._watch = self.loop.call_later(SILENT_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self.transport.lingers:
            return
        self._heard = self.loop.time()
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                )
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It is here as a whole."""
        self._in_body = False
        super().on_message_complete()

    def _look(self) -> None:
        """Closes the connection if its client has owed something for too long; looks again later otherwise."""
        silent = self.loop.time() - self._heard if self._is_owed() else 0.0
        if silent >= SILENT_SECONDS:
            self._watch = None
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(SILENT_SECONDS - silent, self._look)

    def _is_owed(self) -> bool:
        """Whether the next word is the client's: no request is being answered, or its body is not whole."""
        if self.flow.read_paused:
            return False
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body
