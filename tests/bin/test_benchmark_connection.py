"""The load generator's HTTP client against a server of bytes: whatever way a response is cut, it is read once and whole."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bin.benchmark.account import Account, Refused
from bin.benchmark.connection import ChunkedBody, ConnectionFailed, Origin

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Origin]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield origin
    finally:
        origin.close()
        server.close()


def answering(*pieces: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)

    return handler


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 11\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"


@pytest.mark.parametrize("response", [WHOLE, CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
async def test_a_response_cut_anywhere_is_read_whole_and_its_connection_used_again(response: bytes, size: int) -> None:
    pieces = [response[start : start + size] for start in range(0, len(response), size)]
    async with serving(answering(*pieces)) as origin:
        for _ in range(2):
            answer = await origin.request(REQUEST, 5)
            assert (answer.status, answer.body) == (200, b"hello world")
        assert (origin.counts.sent, origin.counts.answered, origin.counts.failed) == (2, 2, 0)


async def test_a_closed_connection_fails_its_request_and_nothing_is_sent_again() -> None:
    requests = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1

    async with serving(handler) as origin:
        with pytest.raises(ConnectionFailed, match="closed"):
            await origin.request(REQUEST, 5)
        assert (requests, origin.counts.failed) == (1, 1)


async def test_a_request_without_an_answer_fails_after_its_timeout() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    async with serving(handler) as origin:
        with pytest.raises(ConnectionFailed, match="no response"):
            await origin.request(REQUEST, 0.05)


async def test_a_cancelled_request_is_counted_as_abandoned_and_its_connection_not_used_again() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(WHOLE.replace(b"hello", b"stale"))
        await writer.drain()
        await reader.read()

    async with serving(handler) as origin:
        task = asyncio.create_task(origin.request(REQUEST, 5))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (origin.counts.abandoned, origin.counts.failed, origin._idle) == (1, 0, [])


async def test_a_status_other_than_200_is_an_error_with_the_servers_words() -> None:
    body = b'{"errcode":"M_LIMIT_EXCEEDED"}'
    response = b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with serving(answering(response)) as origin:
        with pytest.raises(Refused, match=r"429.*M_LIMIT_EXCEEDED"):
            await Account(origin, "@a:b", "token").joined_rooms()
        assert origin.counts.statuses == {429: 1}


def test_a_malformed_chunk_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ChunkedBody().feed(b"five\r\nhello\r\n")
