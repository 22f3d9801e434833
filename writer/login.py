"""Logging in with a password or a token, refreshing tokens, logging out.

Invariant: attempts are limited per address, and failures per account (`writer/password_check.py`).
Source: client-server API, "Legacy API", "Login", "Token refresh flow".
"""

from __future__ import annotations

from typing import Any, ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from matrix.errors import MatrixError, invalid_param, unknown
from writer.login_tokens import LoginTokens
from writer.logins import Logins
from writer.password_check import PasswordCheck, identifier_of
from writer.rate_limits import RateLimits, caller_at
from writer.requests import Body, boolean, read_body, required_text, session_of, short, text
from writer.to_device import Strays

PUBLIC = frozenset({"GET", "POST"})


def address_of(req: Request) -> str:
    """Where a request came from."""
    client = req.scope.get("client")
    return client[0] if client else ""


def caller_of(req: Request) -> str:
    """Where a request came from, as rate limits know it."""
    return caller_at(address_of(req))


class Login:
    """GET and POST /login."""

    public_methods: ClassVar = PUBLIC

    def __init__(
        self,
        pool: Pool,
        check: PasswordCheck,
        tokens: LoginTokens,
        logins: Logins,
        strays: Strays,
        limits: RateLimits,
        server_name: str,
    ) -> None:
        self._pool = pool
        self._strays = strays
        self._check = check
        self._tokens = tokens
        self._logins = logins
        self._limits = limits
        self._server_name = server_name

    async def on_get(self, req: Request, resp: Response) -> None:
        """The login types there are."""
        flows: list[dict[str, object]] = [{"type": "m.login.password"}]
        if self._tokens.enabled:
            flows.append({"type": "m.login.token", "get_login_token": True})
        resp.media = {"flows": flows}

    async def on_post(self, req: Request, resp: Response) -> None:
        """Logs a device in."""
        body = await read_body(req)
        kind, device = required_text(body, "type"), device_of(body)
        if kind == "m.login.token" and self._tokens.enabled:
            token = required_text(body, "token")
            self._limits.take("login", f"address {caller_of(req)}")
            account = await self._tokens.account(token)
        elif kind == "m.login.password":
            identifier, password = identifier_of(body), required_text(body, "password")
            self._limits.take("login", f"address {caller_of(req)}")
            account = await self._check.account(identifier, password)
        else:
            raise unknown(400, "Unknown login type.")
        if device["device_id"] is not None:
            await self._strays.forget(account.user_id, device["device_id"])
        async with self._pool.connection() as connection:
            resp.media = {
                **await self._logins.begin(
                    connection,
                    account.user_id,
                    password_hash=account.password_hash,
                    address=address_of(req) or None,
                    **device,
                ),
                "home_server": self._server_name,
            }


def device_of(body: Body) -> dict[str, Any]:
    """What a login or registration says of its device, as arguments of `Logins.begin`."""
    device_id = short("device_id", text(body, "device_id"))
    if device_id is not None and (not device_id or "\0" in device_id):
        raise invalid_param("device_id must not be empty, nor contain the character U+0000.")
    return {
        "device_id": device_id,
        "display_name": short("initial_device_display_name", text(body, "initial_device_display_name")),
        "refreshable": boolean(body, "refresh_token"),
    }


class Refresh:
    """POST /refresh."""

    public_methods: ClassVar = PUBLIC

    def __init__(self, logins: Logins, limits: RateLimits) -> None:
        self._logins = logins
        self._limits = limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """New tokens for a refresh token."""
        body = await read_body(req)
        token = required_text(body, "refresh_token")
        self._limits.check("login", f"refresh {caller_of(req)}")
        try:
            resp.media = await self._logins.refresh(token)
        except MatrixError:
            self._limits.charge("login", f"refresh {caller_of(req)}")
            raise


class Logout:
    """POST /logout and /logout/all."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    async def on_post(self, req: Request, resp: Response) -> None:
        """Ends the session and deletes its device."""
        session = session_of(req)
        await self._logins.end(session.user_id, [session.device_id])
        resp.media = {}

    async def on_post_all(self, req: Request, resp: Response) -> None:
        """Ends every session of the user and deletes their devices."""
        await self._logins.end_all(session_of(req).user_id)
        resp.media = {}
