"""Pushers: where a user's devices want to be told of notifications.

Invariant: a pusher goes with the device that set it; what is accepted is what the push reader can deliver to: a gateway reached by
HTTPS (or by plain HTTP in networks that the operator allows). Source: client-server API, "Push notifications".
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.settings import Settings
from matrix.errors import MatrixError, bad_json, invalid_param, missing_param, too_large
from writer.requests import Body, read_body, session_of

SQL = Queries("writer", "pushers.sql")

MOST_PUSHERS: Final = 50
"""Pushers of one user."""
MOST_APP_ID: Final = 64
MOST_PUSHKEY_BYTES: Final = 512
MOST_NAME: Final = 255
MOST_DATA_BYTES: Final = 8_192
PATH: Final = "/_matrix/push/v1/notify"
NEEDED: Final = ("app_display_name", "device_display_name", "lang", "data")


class Pushers:
    """GET /pushers and POST /pushers/set."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._plain_http = bool(settings.push.allowed_networks)

    async def on_get(self, req: Request, resp: Response) -> None:
        """The requester's pushers."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["pushers"], {"user_id": session_of(req).user_id})
            resp.media = {"pushers": [_pusher(*row) for row in await cursor.fetchall()]}

    async def on_post_set(self, req: Request, resp: Response) -> None:
        """Sets a pusher, or removes it."""
        session, body = session_of(req), await read_body(req)
        absent = [name for name in ("app_id", "pushkey") if body.get(name) is None]
        absent += ["kind"] if "kind" not in body else []
        if body.get("kind") is not None:
            absent += [name for name in NEEDED if body.get(name) is None]
        if absent:
            raise missing_param(f"Missing parameters: {', '.join(absent)}.")
        app_id, pushkey = _text(body, "app_id", MOST_APP_ID), _text(body, "pushkey", MOST_PUSHKEY_BYTES)
        if len(pushkey.encode()) > MOST_PUSHKEY_BYTES:
            raise invalid_param(f"pushkey may have {MOST_PUSHKEY_BYTES} bytes.")
        key = {"user_id": session.user_id, "app_id": safe(app_id), "pushkey": safe(pushkey)}
        resp.media = {}
        if body["kind"] is None:
            async with self._pool.connection() as connection:
                await connection.execute(SQL["drop"], key)
            return
        if body["kind"] != "http":
            raise invalid_param("This server has no pushers but those of kind http.")
        append = body.get("append", False)
        if not isinstance(append, bool):
            raise bad_json("append must be a boolean.")
        put = {
            **key,
            "device_id": safe(session.device_id),
            "data": safe(orjson.dumps(self._data(body)).decode()),
            "profile_tag": safe(_text(body, "profile_tag", MOST_NAME)) if body.get("profile_tag") is not None else "",
            "most": MOST_PUSHERS,
            **{
                name: safe(_text(body, name, MOST_NAME)) for name in ("app_display_name", "device_display_name", "lang")
            },
        }
        async with self._pool.connection() as connection, connection.transaction():
            if await (await connection.execute(SQL["put"], put)).fetchone() is None:
                raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A user may have {MOST_PUSHERS} pushers.")
            if not append:
                await connection.execute(SQL["drop_of_others"], key)

    def _data(self, body: Body) -> dict[str, Any]:
        data = body["data"]
        if not isinstance(data, dict):
            raise bad_json("data must be an object.")
        if len(orjson.dumps(data)) > MOST_DATA_BYTES:
            raise too_large(f"data may have {MOST_DATA_BYTES} bytes.")
        url = data.get("url")
        if url is None:
            raise missing_param("data.url is missing.")
        if not isinstance(url, str):
            raise bad_json("data.url must be a string.")
        if not isinstance(data.get("format", ""), str):
            raise bad_json("data.format must be a string.")
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise invalid_param("data.url is not a URL.") from None
        # "MUST be an HTTPS URL with a path of /_matrix/push/v1/notify."
        schemes = ("https", "http") if self._plain_http else ("https",)
        if parts.scheme not in schemes or not parts.hostname or parts.path != PATH or parts.username is not None:
            raise invalid_param(f"data.url must be an HTTPS URL with a path of {PATH}.")
        return data


def _text(body: Body, name: str, most: int) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise bad_json(f"{name} must be a string.")
    if not value and name in ("app_id", "pushkey"):
        raise invalid_param(f"{name} is empty.")
    if len(value) > most:
        raise invalid_param(f"{name} may have {most} characters.")
    return value


def _pusher(
    app_id: str, pushkey: str, app_name: str, device_name: str, profile_tag: str, lang: str, data: str
) -> dict[str, Any]:
    pusher: dict[str, Any] = {
        "app_id": unsafe(app_id),
        "pushkey": unsafe(pushkey),
        "kind": "http",
        "app_display_name": unsafe(app_name),
        "device_display_name": unsafe(device_name),
        "lang": unsafe(lang),
        "data": orjson.loads(data),
    }
    if profile_tag:
        pusher["profile_tag"] = unsafe(profile_tag)
    return pusher
