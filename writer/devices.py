"""The requester's devices: listed, renamed, and deleted with their sessions.

Invariant: deleting needs the password. Source: client-server API, "Device management".
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.errors import missing_param, not_found
from writer.authentication import PasswordAuthentication
from writer.log_writer import LogWriter
from writer.logins import Logins
from writer.requests import read_body, session_of, short, text, texts

SQL = Queries("writer", "devices.sql")
MOST_DELETED = 1000


class Devices:
    """/devices, /devices/{device_id}, /delete_devices."""

    def __init__(self, pool: Pool, log: LogWriter, logins: Logins, authentication: PasswordAuthentication) -> None:
        self._pool = pool
        self._log = log
        self._logins = logins
        self._authentication = authentication

    async def on_get_list(self, req: Request, resp: Response) -> None:
        """All devices of the requester."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["devices"], {"user_id": session_of(req).user_id})
            resp.media = {"devices": [_device(*row) for row in await cursor.fetchall()]}

    async def on_get(self, req: Request, resp: Response, device_id: str) -> None:
        """One device."""
        key = {"user_id": session_of(req).user_id, "device_id": safe(device_id)}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["device"], key)).fetchone()
        if row is None:
            raise not_found("No such device.")
        resp.media = _device(*row)

    async def on_put(self, req: Request, resp: Response, device_id: str) -> None:
        """Renames a device; its name is told with its keys, so others are told that it changed."""
        body = await read_body(req)
        key = {"user_id": session_of(req).user_id, "device_id": safe(device_id)}
        name = short("display_name", text(body, "display_name"))
        async with self._pool.connection() as connection:
            if name is None:
                cursor = await connection.execute(SQL["exists"], key)
            else:
                cursor = await connection.execute(SQL["rename"], {**key, "display_name": safe(name)})
            if await cursor.fetchone() is None:
                raise not_found("No such device.")
        if name is not None:
            await self._log.append_entry(type="keys", user_id=session_of(req).user_id, content={"keys": []})
        resp.media = {}

    async def on_delete(self, req: Request, resp: Response, device_id: str) -> None:
        """Deletes a device and its sessions."""
        body = await read_body(req, optional=True)
        session_id = await self._authentication.require(req, body, f"/devices/{device_id}")
        await self._logins.end(session_of(req).user_id, [device_id])
        await self._authentication.end(session_id)
        resp.media = {}

    async def on_post_delete(self, req: Request, resp: Response) -> None:
        """Deletes several devices and their sessions."""
        body = await read_body(req)
        if body.get("devices") is None:
            raise missing_param("devices is missing.")
        device_ids = texts(body, "devices", MOST_DELETED)
        session_id = await self._authentication.require(req, body, "/delete_devices")
        await self._logins.end(session_of(req).user_id, device_ids)
        await self._authentication.end(session_id)
        resp.media = {}


def _device(device_id: str, name: str | None, address: str | None, seen_at: int | None) -> dict[str, Any]:
    device: dict[str, Any] = {"device_id": unsafe(device_id)}
    if name is not None:
        device["display_name"] = unsafe(name)
    if address is not None:
        device["last_seen_ip"] = address
    if seen_at is not None:
        device["last_seen_ts"] = seen_at
    return device
