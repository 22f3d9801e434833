"""One-time keys that are handed out to those who begin a session with a device.

Invariant: a one-time key is handed out at most once, in one committed statement, and a key of an earlier epoch never, for a
restored database does not know whether it was. Requests that come while such a statement is under way share the next one: one
commit, and one entry that says whose stock has changed. Source: client-server API, "End-to-End Encryption: Key management API".
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.shared_statement import SharedStatement
from matrix.errors import bad_json, invalid_param, too_large
from matrix.identifiers import is_user_id, server_name_of
from writer.log_writer import LogWriter
from writer.requests import Body, json_object, read_body

SQL: Final = Queries("writer", "keys.sql")
MOST_KEYS: Final = 1_000
"""Keys that one request may claim."""
MOST_AT_ONCE: Final = 2_000
"""Keys that one statement hands out; a request is not divided."""

Wish = tuple[str, str, str]
"""User, device and algorithm."""
Key = tuple[str, str]
"""Its id, and the key as JSON."""
Given = tuple[dict[Wish, Key], int | None]
"""A key for each wish that could be met, and the entry that says so, if that changed anything."""


class KeyClaims:
    """/keys/claim."""

    def __init__(self, pool: Pool, log: LogWriter, server_name: str) -> None:
        self._pool = pool
        self._dispenser = SharedStatement(self._hand_out, most=MOST_AT_ONCE, name="key claims")
        self._log = log
        self._server_name = server_name

    async def on_post(self, req: Request, resp: Response) -> None:
        """Hands out a key of each device that is named."""
        wishes, failures = self._wishes(await read_body(req))
        found: dict[str, dict[str, dict[str, Any]]] = {}
        if wishes:
            self._log.check_load()
            given, entry = await self._dispenser.answer(wishes, len(wishes))
            for (user_id, device_id, algorithm), (key_id, key) in given.items():
                found.setdefault(user_id, {})[device_id] = {f"{algorithm}:{key_id}": orjson.loads(key)}
            await self._log.settled(entry)
        resp.media = {"one_time_keys": found, "failures": failures}

    async def _hand_out(self, asked: list[list[Wish]]) -> list[Given]:
        rows = [
            {"o": place, "user_id": user_id, "device_id": safe(device_id), "algorithm": safe(algorithm)}
            for place, (user_id, device_id, algorithm) in enumerate(wish for wishes in asked for wish in wishes)
        ]
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["claim"], {"wanted": orjson.dumps(rows).decode()})).fetchone()
        assert row is not None
        keys = {place: (unsafe(key_id), key) for place, key_id, key in orjson.loads(row[0])}
        given: list[Given] = []
        first = 0
        for wishes in asked:
            found = {wish: keys[place] for place, wish in enumerate(wishes, first) if place in keys}
            first += len(wishes)
            given.append((found, row[1] if found else None))
        return given

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
