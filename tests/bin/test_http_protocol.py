"""A connection whose client sends nothing, or a head without an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from bin import http_protocol
from bin.http_protocol import MOST_HEAD_BYTES, Protocol

WAIT = 60.0


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the length of the body once it is whole; on /late later than a client may be silent, on /early at once."""
    length, more = 0, scope["path"] != "/early"
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        length, more = length + len(event["body"]), event["more_body"]
    if scope["path"] == "/late":
        await asyncio.sleep(2 * http_protocol.SILENT_SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"%4d" % (length % 10_000)})


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = Config(application, http=Protocol, ws="none", interface="asgi3", timeout_keep_alive=600)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}, loop), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, however that is done."""
    found = b""
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(1000):
                found += part
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nhost: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhal",
    ],
)
async def test_a_connection_is_closed_when_the_rest_of_a_request_does_not_come(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "SILENT_SECONDS", 0.3)
    async with connected() as (reader, writer):
        writer.write(sent)
        assert await everything(reader) == b""


async def test_a_client_that_waits_for_an_answer_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SILENT_SECONDS", 0.3)
    async with connected() as (reader, writer):
        writer.write(b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
        found = await everything(reader)
        assert found.startswith(b"HTTP/1.1 200 ") and found.endswith(b"\r\n\r\n   5")


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
async def test_who_is_answered_early_may_send_on(more: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n" + more + b"\r\n")
        for _ in range(20):
            writer.write(b"a" * 1_000_000)
            async with asyncio.timeout(WAIT):
                await writer.drain()
        found = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4)
        assert found.startswith(b"HTTP/1.1 200 ") and (more in found)
        if more:
            assert await everything(reader) == b""
        else:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_head_without_an_end_is_refused() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * (2 * MOST_HEAD_BYTES))
        assert (await everything(reader)).startswith(b"HTTP/1.1 431 ")


async def test_what_comes_with_the_end_of_a_head_is_not_counted_with_it() -> None:
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n" + b"a" * 3_000_000)
            async with asyncio.timeout(WAIT):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readexactly(4)
