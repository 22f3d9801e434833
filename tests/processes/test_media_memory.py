"""Media in bulk: a large upload and many downloads at once take little memory, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from people import Person
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1 << 20
SIZE = 100 * MIB
DOWNLOADS = 50
MOST_GROWTH = 50 * MIB


class Watched:
    """The memory of a process, looked at all the time: what it has of its own, and its highest."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now(self) -> int:
        return int(self._process.memory_full_info().uss)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, self.now())


@pytest.fixture(params=["database", "directory"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WholeServer]:
    environ = {
        "WALDEN_MEDIA_STORE": request.param,
        "WALDEN_MEDIA_MAX_UPLOAD_BYTES": str(SIZE),
        "WALDEN_RATE_LIMITS": "off",
    }
    with WholeServer(tmp_path / "d", **environ) as server:
        yield server


async def test_a_large_upload_and_many_downloads_take_little_memory(server: WholeServer) -> None:
    block = os.urandom(MIB)
    whole = hashlib.sha256(block * (SIZE // MIB)).hexdigest()

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(SIZE // MIB):
            yield block

    async def fetch(http: aiohttp.ClientSession, url: str, wanted: int) -> str:
        found = hashlib.sha256()
        async with http.get(url, headers={"range": f"bytes=0-{wanted - 1}"}) as answer:
            assert answer.status == 206
            async for part in answer.content.iter_chunked(65_536):
                found.update(part)
        return found.hexdigest()

    worker = server.target("worker", random.Random())
    assert worker is not None
    async with Person(server.url) as one, Person(server.url) as other:
        await one.register()
        await other.register()
        room_id = await one.create_room()
        await other.join(room_id)
        other.listen()
        headers = {"authorization": f"Bearer {one.token}"}
        timeout = aiohttp.ClientTimeout(total=300)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as http:
            # What any first upload, download and message load.
            small = await http.post(f"{server.url}/_matrix/media/v3/upload", data=block)
            media = f"{server.url}/_matrix/client/v1/media/download/{SERVER_NAME}/"
            await fetch(http, media + (await small.json())["content_uri"].rpartition("/")[2], MIB)
            await other.until_seen(room_id, await one.send(room_id, "before"))
            with Watched(worker.pid) as watched:
                before = watched.now()
                began = time.monotonic()
                async with http.post(f"{server.url}/_matrix/media/v3/upload", data=blocks()) as answer:
                    assert answer.status == 200, await answer.text()
                    media += (await answer.json())["content_uri"].rpartition("/")[2]
                uploaded, at_upload = time.monotonic() - began, watched.most - before
                # One reads all of it and is told apart by its hash; the others make the crowd.
                wanted = [SIZE, *[SIZE // 5] * (DOWNLOADS - 1)]
                began = time.monotonic()
                fetching = asyncio.gather(*(fetch(http, media, count) for count in wanted))
                await other.until_seen(room_id, await one.send(room_id, "meanwhile"))
                found = await fetching
                downloaded = time.monotonic() - began
        assert found[0] == whole
        assert len(set(found[1:])) == 1
    rows = server.rows("select count(*) as chunks, max(length(data)) as most from media.chunks")
    print(
        f"100 MiB up in {uploaded:.1f} s, {sum(wanted) / MIB:.0f} MiB down in {downloaded:.1f} s; grown by "
        f"{at_upload / MIB:.1f} MiB, then {(watched.most - before) / MIB:.1f} MiB; {rows}"
    )
    assert watched.most - before < MOST_GROWTH
    assert (rows[0]["most"] or 0) <= 262_144
