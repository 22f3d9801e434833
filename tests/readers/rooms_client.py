"""Clients of the room endpoints: the real application over the real database, with tokens that say who asks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from bin.web import Routes, build_app
from eventlog.configuration import load_settings
from eventlog.head import Head
from eventlog.sessions import Session, SessionCache
from readers.notifications.resources import add_routes as add_notification_routes
from readers.rooms.routes import add_routes
from readers.search.routes import add_routes as add_search_routes
from readers.userdirectory.resources import add_routes as add_user_directory_routes

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"


class Sessions:
    """Every token is a session: `user id/device id`."""

    def cached(self, token: str) -> Session:
        """The session of a token."""
        user_id, _, device_id = token.partition("/")
        return Session(user_id, device_id, b"", watched=True)

    async def session(self, token: str) -> Session:
        """Likewise."""
        return self.cached(token)

    def see(self, _session: Session, _address: str | None) -> None:
        """Nobody asks when it was seen."""


class Lifespan:
    """Everything is open before the application is."""

    async def open(self) -> None:
        """Nothing is left to be opened."""

    async def close(self) -> None:
        """Nothing is closed here."""

    def stop(self) -> None:
        """Nothing waits."""


class Client:
    """One user on one device."""

    def __init__(self, http: httpx.AsyncClient, user_id: str, device_id: str = "PHONE") -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {user_id}/{device_id}"}

    async def ask(self, path: str, **parameters: Any) -> tuple[int, Any]:
        """Status and body of a GET. A parameter that is no string goes as JSON; a final underscore of its name is dropped."""
        query = {
            name.rstrip("_"): value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in parameters.items()
        }
        answer = await self._http.get(path, params=query, headers=self._headers)
        return answer.status_code, orjson.loads(answer.content)

    async def post(self, path: str, body: Any, **parameters: str) -> tuple[int, Any]:
        """Status and body of a POST."""
        answer = await self._http.post(path, params=parameters, json=body, headers=self._headers)
        return answer.status_code, orjson.loads(answer.content)

    async def get(self, path: str, **parameters: Any) -> Any:
        """The body of a GET that succeeds."""
        status, body = await self.ask(path, **parameters)
        assert status == 200, (status, body)
        return body

    async def refusal(self, path: str, **parameters: Any) -> tuple[int, str]:
        """Status and errcode of a GET that is refused."""
        status, body = await self.ask(path, **parameters)
        assert status != 200, body
        return status, body["errcode"]


class Server:
    """The endpoints, open for any number of clients."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    def client(self, user_id: str, device_id: str = "PHONE") -> Client:
        """A client of a user."""
        return Client(self._http, user_id, device_id)


@contextlib.asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[Server]:
    """The endpoints over a database."""
    pool = AsyncConnectionPool(
        dsn,
        connection_class=AsyncConnection,
        min_size=1,
        max_size=4,
        kwargs={"autocommit": True, "prepare_threshold": 1},
        open=False,
    )
    async with pool, Head(dsn, want_verdicts=False) as head:
        routes = Routes()
        settings = load_settings({"WALDEN_SERVER_NAME": "test.example"}, Path("walden.toml"))
        add_routes(routes, pool, head, settings)
        add_search_routes(routes, pool, settings)
        add_user_directory_routes(routes, pool)
        add_notification_routes(routes, pool)
        app: Any = build_app(routes, cast(SessionCache, Sessions()), Lifespan(), max_body_bytes=65_536)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            yield Server(http)
