"""Decoding what strangers made, in processes of their own: `eventlog/image_decoder.py`.

Invariant: nothing of an image or a page is decoded here. Each task has a process that ends with it, killed when its time is over;
few run at once, and few wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import PIL
import structlog
from prometheus_client import Counter

from eventlog.metrics import Tallies
from eventlog.settings import Media
from matrix.errors import limit_exceeded

AT_ONCE: Final = 2
"""Processes at a time, of each of ours."""
MOST_WAITING: Final = 100
MOST_ANSWER: Final = 1 << 20
MOST_HEAD: Final = 1 << 18
"""What it says of a page, of sixty properties at most."""
_PROGRAM: Final = Path(__file__).with_name("image_decoder.py")
_DECODED = Tallies(
    Counter("walden_media_decodings", "Images and pages decoded, by task and outcome.", ["task", "outcome"])
)
log = structlog.get_logger(__name__)


class Decoded(NamedTuple):
    """What came of it: an object (with `error` if nothing did), and bytes."""

    answer: dict[str, Any]
    data: bytes

    @property
    def error(self) -> str | None:
        """`undecodable`, `too_large`, or None."""
        found: str | None = self.answer.get("error")
        return found


class Decoders:
    """Starts decoders."""

    def __init__(self, settings: Media) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def run(self, task: str, source: AsyncIterator[bytes], **options: Any) -> Decoded:
        """Carries a task out on the bytes of `source`. M_LIMIT_EXCEEDED when too many wait; what `source` raises."""
        if self._waiting >= MOST_WAITING:
            raise limit_exceeded(5_000)
        self._waiting += 1
        try:
            async with self._turns:
                found = await self._carry_out(task, source, options)
        finally:
            self._waiting -= 1
        _DECODED.add(task, found.error or "done")
        return found

    async def _carry_out(self, task: str, source: AsyncIterator[bytes], options: dict[str, Any]) -> Decoded:
        settings = self._settings
        told = {
            "do": task,
            "seconds": settings.decoder_seconds,
            "memory": settings.decoder_memory_bytes,
            "packages": str(Path(PIL.__file__).parents[1]),
            "pixels": settings.max_image_pixels,
            **options,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(_PROGRAM),
            orjson.dumps(told).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd=tempfile.gettempdir(),
            limit=65_536,
        )
        try:
            # Bytes that are slow in coming are not the decoder's fault, but it must not wait for ever either.
            async with asyncio.timeout(settings.decoder_seconds * 2):
                await _feed(process, source)
                async with asyncio.timeout(settings.decoder_seconds):
                    answer = await _answer(process)
        except TimeoutError:
            log.warning("a decoder was killed: its time was over", task=task)
            return Decoded({"error": "too_large"}, b"")
        finally:
            # Kills it, and closes the pipes: asyncio waits for a process whose output nobody takes for ever.
            process._transport.close()  # type: ignore[attr-defined]
            await process.wait()
        head, newline, data = answer.partition(b"\n")
        if not newline or len(data) > MOST_ANSWER:
            # It was ended by a bound that it ran into.
            return Decoded({"error": "too_large"}, b"")
        return Decoded(orjson.loads(head), data)


async def _answer(process: asyncio.subprocess.Process) -> bytes:
    """All that it says, or a little more than it may."""
    assert process.stdout is not None
    answer = bytearray()
    while len(answer) <= MOST_ANSWER + MOST_HEAD and (part := await process.stdout.read(65_536)):
        answer += part
    return bytes(answer)


async def _feed(process: asyncio.subprocess.Process, source: AsyncIterator[bytes]) -> None:
    assert process.stdin is not None
    # It may have had enough before it has everything.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async for part in source:
            process.stdin.write(part)
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
