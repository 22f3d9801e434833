"""The sync endpoint over HTTP: parameters, refusals, and clients that go away while they wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import falcon.asgi
import httpx
import pytest
import uvicorn
from sync_world import World, settings_of, user, world

from matrix.errors import MatrixError
from readers.sync.resources import add_routes

pytestmark = pytest.mark.postgres

ALICE = user("alice")
PATH = "/_matrix/client/v3/sync"


class Signed:
    """Authentication, all but the tokens."""

    async def process_resource(self, req: Any, resp: Any, resource: Any, params: Any) -> None:
        req.context.session = SimpleNamespace(user_id=ALICE, device_id="DEVICE")


async def refuse(req: Any, resp: Any, error: MatrixError, params: Any) -> None:
    resp.status, resp.media = error.status, error.body()


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


@pytest.fixture
async def http(here: World) -> AsyncIterator[httpx.AsyncClient]:
    app: Any = falcon.asgi.App(middleware=[Signed()])
    app.add_error_handler(MatrixError, refuse)
    add_routes(app, here.sync)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 10)


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("since=nonsense", "M_INVALID_PARAM"),
        ("since=w1_%00_1", "M_INVALID_PARAM"),
        ("timeout=soon", "M_INVALID_PARAM"),
        ("timeout=-1", "M_INVALID_PARAM"),
        ("full_state=perhaps", "M_INVALID_PARAM"),
        ("set_presence=asleep", "M_INVALID_PARAM"),
        ("filter=nobody-made-it", "M_NOT_FOUND"),
        ("filter=%00", "M_NOT_FOUND"),
        ("filter=%7B", "M_NOT_JSON"),
        ("filter=%7B%22room%22%3A1%7D", "M_BAD_JSON"),
    ],
)
async def test_what_makes_no_sense_is_refused(http: httpx.AsyncClient, query: str, errcode: str) -> None:
    answer = await http.get(f"{PATH}?{query}")
    assert 400 <= answer.status_code < 500
    assert answer.json()["errcode"] == errcode


async def test_a_client_that_goes_away_is_waited_for_no_longer(http: httpx.AsyncClient, here: World) -> None:
    since = (await http.get(PATH)).json()["next_batch"]
    with contextlib.suppress(httpx.ReadTimeout):
        await http.get(PATH, params={"since": since, "timeout": "20000"}, timeout=0.3)
    waiting = here.sync.current.users.get(ALICE)
    assert waiting is not None
    async with asyncio.timeout(3):
        while waiting.waiters:  # noqa: ASYNC110 - what is waited for is that nobody waits
            await asyncio.sleep(0.01)


async def test_a_long_poll_is_answered_as_json(http: httpx.AsyncClient, here: World) -> None:
    room = await here.room(ALICE)
    since = (await http.get(PATH)).json()["next_batch"]
    waiting = asyncio.create_task(http.get(PATH, params={"since": since, "timeout": "20000"}))
    await asyncio.sleep(0.1)
    await here.say(room, ALICE, "hello")
    answer = await asyncio.wait_for(waiting, 10)
    assert answer.headers["content-type"] == "application/json"
    events = answer.json()["rooms"]["join"][room]["timeline"]["events"]
    assert events[-1]["content"]["body"] == "hello"
