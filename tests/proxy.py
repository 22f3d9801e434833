"""A TCP proxy in front of a PostgreSQL server that can be cut, stalled and resumed, as networks are.

Invariant: while it is neither cut nor stalled it changes nothing; what it holds in memory is bounded by one read a direction.

    async with Proxy(cluster.socket_path) as proxy:
        connection = await AsyncConnection.connect(cluster.dsn(host="127.0.0.1", port=str(proxy.port)))
        proxy.cut()       # every connection ends at once, new ones are refused until `mend`
        proxy.stall()     # connections stay open and nothing passes until `mend`
        proxy.mend()
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PIECE: Final = 1 << 16
Upstream = Path | tuple[str, int]


class Proxy:
    """Listens on a free loopback port and passes bytes to `upstream`, a unix socket or (host, port)."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.port = 0
        self.accepted = 0
        """Connections passed on so far."""
        self.passed = 0
        """Bytes passed from the server to clients so far."""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._refusing = True
        for writer in list(self._writers):
            writer.transport.abort()

    def blink(self) -> None:
        """Reset every connection, and take new ones."""
        self.cut()
        self.mend()

    def stall(self) -> None:
        """Let nothing pass, in connections that stay open and in new ones."""
        self._flowing.clear()

    def mend(self) -> None:
        """Pass bytes and take connections again."""
        self._refusing = False
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            if isinstance(self.upstream, Path):
                above_reader, above_writer = await asyncio.open_unix_connection(str(self.upstream))
            else:
                above_reader, above_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        self.accepted += 1
        ends = {writer, above_writer}
        self._writers |= ends
        passing = {
            asyncio.create_task(self._pass(reader, above_writer, counted=False)),
            asyncio.create_task(self._pass(above_reader, writer, counted=True)),
        }
        self._tasks |= passing
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in passing:
                task.cancel()
            for end in ends:
                end.transport.abort()
            await asyncio.gather(*passing, return_exceptions=True)
            self._tasks -= passing
            self._writers -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()
                self.passed += len(piece) * counted
            # What the other side said last (an error, a goodbye) still has to arrive.
            if writer.can_write_eof():
                writer.write_eof()
                await writer.drain()
                writer.close()
                await writer.wait_closed()
