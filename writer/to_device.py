"""Messages to devices: into the log for whom they are meant, and out of the queue once they have arrived.

Invariant: a message is in the log, for each device by name, before its sender is answered; the same transaction id sends it once.
A device that has `MOST_WAITING` messages takes no more before it has fetched some.
Source: client-server API, "Send-to-Device messaging".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson
import psycopg
import structlog
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.standing import end, stand
from matrix.errors import MatrixError, bad_json, invalid_param, missing_param, too_large
from matrix.identifiers import is_user_id, server_name_of
from writer.log_writer import LogWriter
from writer.requests import json_object, read_body, session_of, short

log = structlog.get_logger(__name__)
SQL: Final = Queries("writer", "keys.sql")
MOST_WAITING: Final = 10_000
"""Messages that wait for a device."""
MOST_RECIPIENTS: Final = 10_000
"""Devices that one request may reach."""
MOST_BYTES: Final = 65_536
"""Bytes of one message as JSON."""
MOST_ENTRY_BYTES: Final = 512 << 10
"""Bytes of messages in one entry of the log; a request may make several."""
MOST_REQUEST_BYTES: Final = 16 << 20
"""Bytes of messages that one request may make, a copy for each device."""
MOST_NOTES: Final = 2_000

Messages = dict[str, dict[str, Any]]


class ToDevice:
    """PUT /sendToDevice/{event_type}/{txn_id}."""

    def __init__(self, pool: Pool, log_writer: LogWriter, server_name: str) -> None:
        self._pool = pool
        self._log = log_writer
        self._server_name = server_name

    async def on_put(self, req: Request, resp: Response, event_type: str, txn_id: str) -> None:
        """Sends messages to devices."""
        session, body = session_of(req), await read_body(req)
        short("event_type", event_type)
        short("txn_id", txn_id)
        messages = json_object(body, "messages")
        if messages is None:
            raise missing_param("messages is missing.")
        _check(messages)
        addressed = await self._addressed({u: m for u, m in messages.items() if server_name_of(u) == self._server_name})
        for part, of_part in enumerate(_parts(addressed)):
            await self._log.append_entry(
                type="to_device",
                user_id=session.user_id,
                content={"type": event_type, "messages": of_part},
                device_id=session.device_id,
                txn_id=f"{txn_id}/{part}" if part else txn_id,
                txn_path=f"sendToDevice/{event_type}/{part}",
            )
        resp.media = {}

    async def _addressed(self, messages: Messages) -> list[tuple[str, str, Any, int]]:
        """User, device (NUL-safe), content and its size, of the devices that there are and that take more."""
        if not messages:
            return []
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["recipients"], {"users": list(messages), "most": MOST_WAITING})
            devices = await cursor.fetchall()
        found: list[tuple[str, str, Any, int]] = []
        full = 0
        for user_id, device_id, is_full in sorted(devices):
            named = messages[user_id]
            # "The device ID may also be *, meaning all known devices for the user."
            name = unsafe(device_id)
            content = named.get(name, named.get("*"))
            if content is None:
                continue
            if is_full:
                full += 1
                continue
            found.append((user_id, device_id, content, len(orjson.dumps(content))))
        if full:
            log.warning("devices that fetch nothing are sent nothing more", devices=full)
        if len(found) > MOST_RECIPIENTS or sum(size for *_, size in found) > MOST_REQUEST_BYTES:
            raise too_large(f"One request reaches at most {MOST_RECIPIENTS} devices with {MOST_REQUEST_BYTES} bytes.")
        return found


class Strays:
    """Messages that were on their way to a device when it was deleted; maintenance takes away those that nobody comes for."""

    def __init__(self, pool: Pool, log_writer: LogWriter, shards: int) -> None:
        self._pool = pool
        self._log = log_writer
        self._shards = shards

    async def forget(self, user_id: str, device_id: str) -> None:
        """Takes them away before another device takes the name: they are encrypted for the former, or none of its business."""
        key = {"user_id": user_id, "device_id": safe(device_id)}
        async with self._pool.connection() as connection:
            found: dict[int, int] = dict(await (await connection.execute(SQL["strays"], key)).fetchall())
        if found:
            content = {"device_id": safe(device_id), "upto": [found.get(shard, 0) for shard in range(self._shards)]}
            await self._log.append_entry(type="received", user_id=user_id, content=content)


class Arrivals:
    """Notes in the log what has arrived at devices; `async with` it. What cannot be noted now is noted after another sync."""

    def __init__(self, log_writer: LogWriter) -> None:
        self._log = log_writer
        self._notes: dict[tuple[str, str], Sequence[int]] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Arrivals:
        self._task = stand(self._run, "arrivals")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)

    def received(self, user_id: str, device_id: str, upto: Sequence[int]) -> None:
        """Messages up to positions by shard have arrived at a device (its NUL-safe id)."""
        before = self._notes.get((user_id, device_id))
        if before is None and len(self._notes) >= MOST_NOTES:
            return
        self._notes[user_id, device_id] = upto if before is None else tuple(map(max, before, upto))
        self._woken.set()

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            notes, self._notes = self._notes, {}
            await asyncio.gather(*(self._note(*device, upto) for device, upto in notes.items()))

    async def _note(self, user_id: str, device_id: str, upto: Sequence[int]) -> None:
        content = {"device_id": device_id, "upto": list(upto)}
        try:
            await self._log.append_entry(type="received", user_id=user_id, content=content)
        except (MatrixError, psycopg.Error, OSError, TimeoutError) as error:
            log.warning("what arrived at a device is not noted", user_id=user_id, error=str(error).strip())


def _check(messages: Messages) -> None:
    for user_id, of_user in messages.items():
        if not is_user_id(user_id):
            raise invalid_param("messages names somebody who is no user.")
        if not isinstance(of_user, dict) or not all(isinstance(content, dict) for content in of_user.values()):
            raise bad_json("messages must have an object for each device.")
        if any(len(orjson.dumps(content)) > MOST_BYTES for content in of_user.values()):
            raise too_large(f"A message has at most {MOST_BYTES} bytes.")


def _parts(addressed: list[tuple[str, str, Any, int]]) -> list[Messages]:
    """The messages in entries that are not too large. One entry at least, so that the transaction id is known again."""
    parts: list[Messages] = [{}]
    size = 0
    for user_id, device_id, content, of_content in addressed:
        if size and size + of_content > MOST_ENTRY_BYTES:
            parts.append({})
            size = 0
        size += of_content
        parts[-1].setdefault(user_id, {})[device_id] = content
    return parts
