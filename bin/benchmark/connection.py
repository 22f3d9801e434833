"""HTTP/1.1 over kept-alive connections: one request in flight per connection, and no request is ever sent twice.

The load generator shares its two cores with the server under test, so the path of a request is one write, one future and one
pass over the response's bytes. A connection that fails ends its request with an exception; nothing here retries, and
`Origin.counts` says how many requests were sent, answered and failed.
"""

import asyncio
import time
from dataclasses import dataclass, field

HEAD_LIMIT = 65_536
"""Bytes of a response's head beyond which the connection is given up."""

IDLE_LIMIT = 3.0
"""Seconds after which an idle connection is not used again: uvicorn closes them after five."""


class ConnectionFailed(Exception):
    """The connection was refused, closed or timed out before the response was complete; the message says which."""


class Response:
    """A complete response: status, body, and the `perf_counter` at which its last byte was received."""

    __slots__ = ("body", "received", "status")

    def __init__(self, status: int, body: bytes, received: float) -> None:
        self.status = status
        self.body = body
        self.received = received


@dataclass(slots=True)
class RequestCounts:
    """Requests of one origin; `sent` equals `answered` + `failed` + `abandoned` + those in flight.

    Abandoned are those whose caller was cancelled: an observer's last poll, or a row that ran out of time.
    """

    sent: int = 0
    answered: int = 0
    failed: int = 0
    abandoned: int = 0
    statuses: dict[int, int] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """One connection; `ask` may be called again once the future of the call before is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._status = 0
        self._chunked: ChunkedBody | None = None
        self._closing = False
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        return not self._closing and self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, timeout: float) -> asyncio.Future[Response]:
        """Writes the request and returns the future of its response; ConnectionFailed after `timeout` seconds."""
        if self._transport is None or self._answer is not None:
            raise ConnectionFailed("connection is not free")
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._answer = answer
        self._timer = self._loop.call_later(timeout, self._fail, f"no response within {timeout:g} s")
        self._transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        if self._missing > 0:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing <= 0:
                self._finish(b"".join(self._parts))
            return
        if self._chunked is not None:
            self._feed_chunked(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts = []
        self._read_head(data)

    def _read_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > HEAD_LIMIT:
                self._fail("response head too long")
            else:
                self._parts = [data]
            return
        head = data[:end].lower()
        body = data[end + 4 :]
        try:
            status = int(head[9:12])
        except ValueError:
            self._fail("not an HTTP response")
            return
        if status < 200:
            self._read_head(body)
            return
        self._status = status
        if b"\r\nconnection: close" in head:
            self._closing = True
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            length = int(head[at + 17 : stop if stop >= 0 else end])
            if len(body) >= length:
                self._finish(body)
            else:
                self._missing = length - len(body)
                self._parts = [body]
        elif head.find(b"\r\ntransfer-encoding: chunked") >= 0:
            self._chunked = ChunkedBody()
            self._feed_chunked(body)
        elif status in (204, 304):
            self._finish(b"")
        else:
            self._fail("response has neither a length nor chunks")

    def _feed_chunked(self, data: bytes) -> None:
        assert self._chunked is not None
        try:
            body = self._chunked.feed(data)
        except ValueError:
            self._fail("chunked body is malformed")
            return
        if body is not None:
            self._finish(body)

    def _finish(self, body: bytes) -> None:
        answer, self._answer = self._answer, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parts = []
        self._missing = 0
        self._chunked = None
        if answer is not None and not answer.done():
            answer.set_result(Response(self._status, body, time.perf_counter()))

    def _fail(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionFailed(reason))
        self.close()

    def connection_lost(self, reason: Exception | None) -> None:
        self._transport = None
        self._fail(f"connection closed by the server ({reason or 'end of stream'})")

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()


class ChunkedBody:
    """RFC 9112 section 7.1: chunks of a size in hexadecimal, ended by one of size zero; trailers are dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes | None:
        """Takes the next bytes and returns the whole body once it is complete; ValueError if malformed."""
        buffer = self._buffer
        buffer += data
        while True:
            line = buffer.find(b"\r\n")
            if line < 0:
                return None
            size = int(bytes(buffer[:line]).split(b";")[0], 16)
            if size == 0:
                if buffer.find(b"\r\n\r\n", line) < 0:
                    return None
                return b"".join(self._pieces)
            if len(buffer) < line + 2 + size + 2:
                return None
            self._pieces.append(bytes(buffer[line + 2 : line + 2 + size]))
            del buffer[: line + 2 + size + 2]


class Origin:
    """The connections to one server: a stack of idle ones, so that the fewest are kept busy."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.counts = RequestCounts()
        self._idle: list[Connection] = []
        self._loop = asyncio.get_running_loop()

    async def request(self, request: bytes, timeout: float) -> Response:
        """Sends the request's bytes once; the response whatever its status, or ConnectionFailed."""
        counts = self.counts
        counts.sent += 1
        try:
            connection = self._take() or await self._connect(timeout)
            try:
                response = await connection.ask(request, timeout)
            except BaseException:
                connection.close()
                raise
        except asyncio.CancelledError:
            counts.abandoned += 1
            raise
        except BaseException:
            counts.failed += 1
            raise
        counts.answered += 1
        counts.statuses[response.status] = counts.statuses.get(response.status, 0) + 1
        if connection.usable:
            connection.idle_since = response.received
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.perf_counter() - connection.idle_since < IDLE_LIMIT:
                return connection
            connection.close()
        return None

    async def _connect(self, timeout: float) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                _, connection = await self._loop.create_connection(lambda: Connection(self._loop), self.host, self.port)
        except (OSError, TimeoutError) as reason:
            raise ConnectionFailed(f"cannot connect: {reason!r}") from reason
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
