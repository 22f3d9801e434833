"""Dehydrated devices: a device without a session takes messages until one that logs in takes its place.

Invariant: a user has one at most. Its messages stay until it is deleted, so that whoever rehydrates it can begin again.
Source: MSC3814, "Dehydrated devices with SSSS".
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.errors import bad_json, invalid_param, missing_param, not_found, too_large
from writer.accounts import gone_devices
from writer.device_keys import MOST_FALLBACK, MOST_KEYS, check_device_keys, keys_of, put_keys
from writer.key_directory import KeyDirectory
from writer.log_writer import LogWriter
from writer.requests import json_object, page_size, read_body, required_text, session_of, short, text

SQL: Final = Queries("writer", "dehydrated_devices.sql")
MOST_DATA_BYTES: Final = 65_536
MOST_EVENTS: Final = 100
_PLACE: Final = re.compile(r"d([0-9]{1,18}(?:\.[0-9]{1,18}){0,255})")


class DehydratedDevices:
    """/dehydrated_device, /dehydrated_device/{device_id}/events."""

    def __init__(self, pool: Pool, log: LogWriter, directory: KeyDirectory, shards: int) -> None:
        self._pool = pool
        self._log = log
        self._directory = directory
        self._shards = shards

    async def on_get(self, req: Request, resp: Response) -> None:
        """The dehydrated device."""
        key = {"user_id": session_of(req).user_id}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["dehydrated"], key)).fetchone()
        if row is None:
            raise not_found("No dehydrated device available.")
        resp.media = {"device_id": unsafe(row[0]), "device_data": orjson.loads(row[1])}

    async def on_put(self, req: Request, resp: Response) -> None:
        """Makes a device the dehydrated one, in place of the one before."""
        session, body = session_of(req), await read_body(req)
        device_id = required_text(body, "device_id")
        short("device_id", device_id)
        if not device_id:
            raise invalid_param("device_id is empty.")
        name = short("initial_device_display_name", text(body, "initial_device_display_name"))
        data, device_keys = json_object(body, "device_data"), json_object(body, "device_keys")
        if data is None or device_keys is None:
            raise missing_param("device_data and device_keys are needed.")
        encoded = orjson.dumps(data).decode()
        if not isinstance(data.get("algorithm"), str):
            raise bad_json("device_data.algorithm must be a string.")
        if len(encoded) > MOST_DATA_BYTES:
            raise too_large(f"device_data has at most {MOST_DATA_BYTES} bytes.")
        check_device_keys(device_keys, session.user_id, device_id)
        one_time = keys_of(body, "one_time_keys", MOST_KEYS)
        fallback = keys_of(body, "fallback_keys", MOST_FALLBACK)
        key = {"user_id": session.user_id, "device_id": safe(device_id)}
        async with self._pool.connection() as connection, connection.transaction():
            # One after the other: each removes what the one before has made.
            await connection.execute(SQL["lock"], key)
            await connection.execute(SQL["remove"], key)
            made = {**key, "display_name": None if name is None else safe(name)}
            if await (await connection.execute(SQL["make_device"], made)).fetchone() is None:
                raise invalid_param("There is a device of that id.")
            kept = {**key, "device_data": encoded}
            if await (await connection.execute(SQL["put"], kept)).fetchone() is None:
                raise invalid_param("Another dehydrated device was made in the same moment.")
            await put_keys(connection, session.user_id, device_id, one_time, fallback)
        await self._directory.put_device(session.user_id, device_id, device_keys)
        resp.media = {"device_id": device_id}

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Deletes the dehydrated device with its messages."""
        key = {"user_id": session_of(req).user_id}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(SQL["remove"], key)).fetchone()
            gone = await gone_devices(connection, key["user_id"])
        if row is None:
            raise not_found("No dehydrated device available.")
        await self._log.settled(gone)
        resp.media = {"device_id": unsafe(row[0])}

    async def on_get_events(self, req: Request, resp: Response, device_id: str) -> None:
        """A page of the messages that wait for it; without next_batch there are no more."""
        events, token, limited = await self._events(req, device_id, req.get_param("from"))
        resp.media = {"events": events, **({"next_batch": token} if limited else {})}

    async def on_post_events(self, req: Request, resp: Response, device_id: str) -> None:
        """The same as an earlier draft has it: until a page is empty."""
        body = await read_body(req, optional=True)
        events, token, _ = await self._events(req, device_id, text(body, "next_batch"))
        resp.media = {"events": events, "next_batch": token}

    async def _events(self, req: Request, device_id: str, begin: str | None) -> tuple[list[dict[str, Any]], str, bool]:
        since = [0] * self._shards
        if begin:
            match = _PLACE.fullmatch(begin)
            if match is None or match[1].count(".") + 1 != self._shards:
                raise invalid_param("That is no token of this server.")
            since = [int(part) for part in match[1].split(".")]
        user_id, most = session_of(req).user_id, page_size(req, MOST_EVENTS, MOST_EVENTS)
        key = {"user_id": user_id, "device_id": safe(device_id), "since": since, "most": most + 1}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["dehydrated"], key)).fetchone()
            if row is None or row[0] != safe(device_id):
                raise not_found("That is not the dehydrated device.")
            rows = await (await connection.execute(SQL["events"], key)).fetchall()
        for shard, position, *_ in rows[:most]:
            since[shard] = position
        events = [
            {"type": unsafe(kind), "sender": sender, "content": orjson.loads(content)}
            for _, _, sender, kind, content in rows[:most]
        ]
        return events, "d" + ".".join(map(str, since)), len(rows) > most
