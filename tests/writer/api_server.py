"""The API in one process with the tests: the application as `bin.api` composes it, asked over ASGI, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bin.api import Process, compose
from eventlog.configuration import load_settings
from eventlog.settings import Settings
from writer.passwords import Passwords

SERVER_NAME = "test.example"
SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
V3 = "/_matrix/client/v3"
Json = dict[str, Any]

_numbers = itertools.count(1)


def settings_for(dsn: str, folder: Path, **environ: str) -> Settings:
    """Settings of a server on a test database."""
    (folder / "signing.key").write_text(f"ed25519 a_test {SEED}\n")
    chosen = {
        "WALDEN_DATA_DIR": str(folder),
        "WALDEN_DATABASE_DSN": dsn,
        "WALDEN_SERVER_NAME": SERVER_NAME,
        "WALDEN_REGISTRATION": "open",
        "WALDEN_RATE_LIMITS": "off",
    }
    return load_settings({**chosen, **environ}, folder / "walden.toml")


def part(text: str) -> str:
    """A path segment."""
    return quote(text, safe="")


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: httpx.Headers

    @property
    def errcode(self) -> str | None:
        """The errcode of an error; it always comes with a sentence."""
        if isinstance(self.body, dict) and "errcode" in self.body:
            assert isinstance(self.body.get("error"), str)
            errcode: str = self.body["errcode"]
            return errcode
        return None

    @property
    def refusal(self) -> tuple[int, str | None]:
        """Status and errcode."""
        return self.status, self.errcode

    def ok(self) -> Json:
        """The body of a success."""
        assert self.status == 200, (self.status, self.body)
        body: Json = self.body
        return body


class Client:
    """One device of one user; without a token, anybody."""

    def __init__(self, api: Api, user_id: str = "", token: str = "", device_id: str = "", password: str = "") -> None:
        self.api = api
        self.user_id = user_id
        self.token = token
        self.device_id = device_id
        self.password = password

    async def call(
        self, method: str, path: str, body: Any = None, *, content: bytes | None = None, headers: Json | None = None
    ) -> Answer:
        """A request; a path that does not begin with a slash is below /_matrix/client/v3/."""
        sent = dict(headers or {})
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        url = path if path.startswith("/") else f"{V3}/{path}"
        response = await self.api.http.request(
            method,
            url,
            headers=sent,
            **({"content": content} if content is not None else {"json": body} if body is not None else {}),
        )
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["content-type"] == "application/json"
        return Answer(response.status_code, response.json(), response.headers)

    async def get(self, path: str) -> Answer:
        return await self.call("GET", path)

    async def put(self, path: str, body: Any = None) -> Answer:
        return await self.call("PUT", path, body)

    async def post(self, path: str, body: Any = None) -> Answer:
        return await self.call("POST", path, body)

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.call("DELETE", path, body)

    async def create_room(self, **options: Any) -> str:
        room_id: str = (await self.post("createRoom", options)).ok()["room_id"]
        return room_id

    async def send(self, room_id: str, text: str = "hello", txn_id: str | None = None) -> str:
        # Not a bare number, which a test may use itself.
        path = f"rooms/{part(room_id)}/send/m.room.message/{txn_id or f'sent-{next(_numbers)}'}"
        event_id: str = (await self.put(path, {"msgtype": "m.text", "body": text})).ok()["event_id"]
        return event_id

    async def state(self, room_id: str, event_type: str, state_key: str = "") -> Json | None:
        """Content of a state event as the log writer sees the room."""
        view = await self.api.process.log.view(room_id, [(event_type, state_key)])
        event = view.state.get((event_type, state_key))
        return None if event is None else event.content

    async def membership(self, room_id: str, user_id: str) -> str | None:
        content = await self.state(room_id, "m.room.member", user_id)
        return None if content is None else content["membership"]


class Api:
    """A running API process."""

    def __init__(self, process: Process, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    @property
    def anybody(self) -> Client:
        return Client(self)

    async def register(self, name: str | None = None, password: str = "a fine password", **options: Any) -> Client:
        """A new user, logged in."""
        name = name or f"user{next(_numbers)}"
        body = {"username": name, "password": password, "auth": {"type": "m.login.dummy"}, **options}
        made = (await self.anybody.post("register", body)).ok()
        return Client(self, made["user_id"], made["access_token"], made["device_id"], password)

    async def login(self, user: Client, **options: Any) -> Client:
        """Another device of a user."""
        identifier = {"type": "m.id.user", "user": user.user_id}
        body = {"type": "m.login.password", "identifier": identifier, "password": user.password, **options}
        made = (await self.anybody.post("login", body)).ok()
        return Client(self, made["user_id"], made["access_token"], made["device_id"], user.password)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Api]:
    """The API, open until the block ends."""
    # What argon2 costs is not what these tests are about.
    process, gate = compose(settings, Passwords(memory_kib=64, passes=1))
    await process.open()
    try:
        transport = httpx.ASGITransport(app=gate, client=("198.51.100.7", 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test.example", timeout=60) as http:
            yield Api(process, http)
    finally:
        await process.close()
