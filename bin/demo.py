"""`walden demo`: a first conversation, each step printed with the request that makes it and what came back.

Invariant: only what any client could do, over HTTP, but for the two accounts, which are made in the database because
registration may be off. Nothing of it needs to be cleaned up; the accounts end with the demo.
"""

import asyncio
import json
import secrets
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import click
from psycopg import AsyncConnection

from eventlog.configuration import Settings
from eventlog.queries import Queries
from matrix.errors import MatrixError
from writer.accounts import create_account, deactivate_account

QUERIES = Queries("bin", "demo.sql")
SECONDS = 30.0


class DemoError(Exception):
    """A step did not do what it should; the message says which and what came back."""


class Client:
    """A Matrix client as small as can be."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._base = settings.local_url
        self.name = name
        self._token = ""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # our own listener, by its address
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """One request to the client-server API; the answer's JSON. Raises DemoError."""
        address = f"{self._base}/_matrix/client/v3{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(address, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        data = None if body is None else json.dumps(body).encode()
        click.echo(f"  {self.name}: {method} {path[:100]}")
        try:
            with self._opener.open(request, data, timeout=SECONDS) as answer:
                got: dict[str, Any] = json.load(answer)
                return got
        except urllib.error.HTTPError as error:
            raise DemoError(
                f"{method} {path} was refused: {error.code} {error.read().decode(errors='replace')}"
            ) from None
        except OSError as error:
            raise DemoError(f"{self._base} does not answer ({error}): start the server with `walden up`") from None

    def login(self, user_id: str, password: str) -> None:
        """Log in with a password."""
        identifier = {"type": "m.id.user", "user": user_id}
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        self._token = self.call("POST", "/login", body)["access_token"]

    def send(self, room_id: str, text: str) -> str:
        """Send a message; its event id."""
        path = f"/rooms/{urllib.parse.quote(room_id, safe='')}/send/m.room.message/{secrets.token_hex(4)}"
        event_id: str = self.call("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]
        return event_id


def demo(settings: Settings) -> None:
    """Run it. Raises DemoError."""
    password, mark = secrets.token_urlsafe(12), secrets.token_hex(3)
    users = {name: f"@demo-{name}-{mark}:{settings.server.name}" for name in ("alice", "bob")}
    click.echo("Two accounts, as `walden user add` makes them:")
    for user_id in users.values():
        click.echo(f"  {user_id}")
    asyncio.run(_accounts(settings, list(users.values()), password))
    try:
        room_id = _talk(settings, users, password)
        asyncio.run(_query(settings, room_id))
    finally:
        asyncio.run(_accounts(settings, list(users.values()), None))
    click.echo("\nThe two accounts are deactivated again; the room stays in the log.")


def _talk(settings: Settings, users: dict[str, str], password: str) -> str:
    alice, bob = Client(settings, "alice"), Client(settings, "bob")
    click.echo("\nBoth log in; Alice makes a room and invites Bob:")
    alice.login(users["alice"], password)
    bob.login(users["bob"], password)
    room = {"name": "A first room", "preset": "private_chat", "invite": [users["bob"]]}
    room_id: str = alice.call("POST", "/createRoom", room)["room_id"]
    click.echo(f"  the room is {room_id}")
    click.echo("\nBob joins, and they talk:")
    bob.call("POST", f"/join/{urllib.parse.quote(room_id, safe='')}", {})
    since = bob.call("GET", "/sync", timeout="0")["next_batch"]
    alice.send(room_id, "Hello Bob, this went through the write-ahead log.")
    bob.send(room_id, "Hello Alice, and it came back out.")
    click.echo("\nWhat Bob's next sync shows:")
    seen: list[dict[str, Any]] = []
    while sum(event["type"] == "m.room.message" for event in seen) < 2:
        answer = bob.call("GET", "/sync", since=since, timeout="10000")
        if answer["next_batch"] == since:
            raise DemoError("the messages did not arrive within ten seconds: see `walden status`")
        since = answer["next_batch"]
        seen += answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {}).get("events", [])
    for event in seen:
        click.echo(f"  {event['sender']}: {event['content'].get('body', event['type'])}")
    return room_id


async def _query(settings: Settings, room_id: str) -> None:
    click.echo("\nThe same room in SQL (walden psql --role history):")
    click.echo(f"  history.messages of the room {room_id}")
    async with await AsyncConnection.connect(settings.dsn("history", direct=True), autocommit=True) as connection:
        cursor = await connection.execute(QUERIES["messages"], {"room_id": room_id})
        columns = [column.name for column in cursor.description or []]
        for row in await cursor.fetchall():
            click.echo()
            for line in _fields(columns, row):
                click.echo(line)


def _fields(columns: list[str], row: tuple[Any, ...]) -> Iterator[str]:
    width = max(len(column) for column in columns)
    for column, value in zip(columns, row, strict=True):
        if value is not None:
            yield f"  {column:<{width}}  {str(value)[:100]}"


async def _accounts(settings: Settings, user_ids: list[str], password: str | None) -> None:
    """Make the accounts, or without a password end them."""
    async with await AsyncConnection.connect(settings.dsn("writer", direct=True), autocommit=True) as connection:
        for user_id in user_ids:
            if password is not None:
                await create_account(connection, user_id, password)
            else:
                try:
                    await deactivate_account(connection, user_id)
                except MatrixError as error:
                    raise DemoError(error.error) from None
