"""One-time keys that are handed out to those who begin a session with a device.

Invariant: a one-time key is handed out at most once, in one committed statement, and a key of an earlier epoch never, for a
restored database does not know whether it was. Requests that come while such a statement is under way share the next one: one
commit, and one entry that says whose stock has changed. Source: client-server API, "End-to-End Encryption: Key management API".
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, NamedTuple

import orjson
import psycopg
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.errors import MatrixError, bad_json, invalid_param, too_large
from matrix.identifiers import is_user_id, server_name_of
from writer.log_writer import LogWriter
from writer.requests import Body, json_object, read_body

SQL: Final = Queries("writer", "keys.sql")
MOST_KEYS: Final = 1_000
"""Keys that one request may claim."""
MOST_AT_ONCE: Final = 2_000
"""Keys that one statement hands out; a request is not divided."""
MOST_WAITING: Final = 2_000
"""Requests of this process that wait for a statement."""

Wish = tuple[str, str, str]
"""User, device and algorithm."""
Key = tuple[str, str]
"""Its id, and the key as JSON."""


class _Waiting(NamedTuple):
    wishes: list[Wish]
    given: asyncio.Future[tuple[dict[Wish, Key], int | None]]


class Dispenser:
    """Hands out keys for all requests of this process, one statement at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._work: asyncio.Task[None] | None = None

    async def claim(self, wishes: list[Wish]) -> tuple[dict[Wish, Key], int | None]:
        """A key for each wish that can be met, and the entry that says so, if that changed anything. 503 if too many wait."""
        if len(self._waiting) >= MOST_WAITING:
            raise MatrixError(503, "M_UNKNOWN", "The server is overloaded. Try again later.")
        waiting = _Waiting(wishes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve(), name="key claims")
        return await waiting.given

    async def _serve(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft()]
            count = len(group[0].wishes)
            while self._waiting and count + len(self._waiting[0].wishes) <= MOST_AT_ONCE:
                group.append(self._waiting.popleft())
                count += len(group[-1].wishes)
            await self._hand_out([one for one in group if not one.given.done()])

    async def _hand_out(self, group: list[_Waiting]) -> None:
        try:
            given, entry = await self._ask([wish for one in group for wish in one.wishes])
        except psycopg.DataError as error:
            if len(group) > 1:
                # One of them brought what the database does not take: it alone is refused.
                for one in group:
                    await self._hand_out([one])
                return
            _fail(group, error)
        except Exception as error:
            _fail(group, error)
        except asyncio.CancelledError:
            for one in group:
                one.given.cancel()
            raise
        else:
            place = 0
            for one in group:
                found = {wish: given[n] for n, wish in enumerate(one.wishes, place) if n in given}
                place += len(one.wishes)
                if not one.given.done():
                    one.given.set_result((found, entry if found else None))

    async def _ask(self, wishes: list[Wish]) -> tuple[dict[int, Key], int | None]:
        rows = [
            {"o": place, "user_id": user_id, "device_id": safe(device_id), "algorithm": safe(algorithm)}
            for place, (user_id, device_id, algorithm) in enumerate(wishes)
        ]
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["claim"], {"wanted": orjson.dumps(rows).decode()})).fetchone()
        assert row is not None
        return {place: (unsafe(key_id), key) for place, key_id, key in orjson.loads(row[0])}, row[1]


def _fail(group: list[_Waiting], error: Exception) -> None:
    for one in group:
        if not one.given.done():
            one.given.set_exception(error)


class KeyClaims:
    """/keys/claim."""

    def __init__(self, pool: Pool, log: LogWriter, server_name: str) -> None:
        self._dispenser = Dispenser(pool)
        self._log = log
        self._server_name = server_name

    async def on_post(self, req: Request, resp: Response) -> None:
        """Hands out a key of each device that is named."""
        wishes, failures = self._wishes(await read_body(req))
        found: dict[str, dict[str, dict[str, Any]]] = {}
        if wishes:
            self._log.check_load()
            given, entry = await self._dispenser.claim(wishes)
            for (user_id, device_id, algorithm), (key_id, key) in given.items():
                found.setdefault(user_id, {})[device_id] = {f"{algorithm}:{key_id}": orjson.loads(key)}
            if entry is not None:
                await self._log.settled(entry)
        resp.media = {"one_time_keys": found, "failures": failures}

    def _wishes(self, body: Body) -> tuple[list[Wish], dict[str, object]]:
        """What is asked of this server; and the servers that cannot be asked."""
        wishes: list[Wish] = []
        failures: dict[str, object] = {}
        users = json_object(body, "one_time_keys")
        if users is None:
            raise bad_json("one_time_keys must be an object.")
        for user_id, devices in users.items():
            if not isinstance(devices, dict):
                raise bad_json("one_time_keys must have an object for each user.")
            if not is_user_id(user_id):
                raise invalid_param("one_time_keys names somebody who is no user.")
            server_name = server_name_of(user_id)
            for device_id, algorithm in devices.items():
                if not isinstance(algorithm, str):
                    raise bad_json("one_time_keys must name an algorithm for each device.")
                if server_name == self._server_name:
                    wishes.append((user_id, device_id, algorithm))
                else:
                    failures[server_name] = {"errcode": "M_UNKNOWN", "error": "This server does not reach others."}
        if len(wishes) > MOST_KEYS:
            raise too_large(f"At most {MOST_KEYS} keys can be claimed at once.")
        return wishes, failures
