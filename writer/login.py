"""Logging in with a password, refreshing tokens, logging out.

Invariant: a wrong password and an unknown name are one answer, after the same time. Attempts are limited per address, failures
per account. Source: client-server API, "Legacy API", "Login", "Token refresh flow".
"""

from __future__ import annotations

from typing import Any, ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from matrix.errors import MatrixError, forbidden, invalid_param, missing_param, unknown
from matrix.identifiers import server_name_of
from writer.accounts import Account, find_account
from writer.logins import Logins
from writer.passwords import Passwords
from writer.rate_limits import RateLimits
from writer.requests import Body, boolean, json_object, read_body, required_text, session_of, short, text

PUBLIC = frozenset({"GET", "POST"})


def address_of(req: Request) -> str:
    """Where a request came from, as rate limits know it."""
    client = req.scope.get("client")
    return client[0] if client else ""


class PasswordCheck:
    """Finds the account that a name and a password open."""

    def __init__(self, pool: Pool, passwords: Passwords, limits: RateLimits, server_name: str) -> None:
        self._pool = pool
        self._passwords = passwords
        self._limits = limits
        self._server_name = server_name

    async def account(self, name: str, password: str) -> Account:
        """The account of a localpart or user id. M_FORBIDDEN, M_USER_DEACTIVATED, M_LIMIT_EXCEEDED after many failures."""
        user_id = name if name.startswith("@") else f"@{name}:{self._server_name}"
        self._limits.check("login", f"account {user_id}")
        async with self._pool.connection() as connection:
            account = await find_account(connection, user_id)
            if account is None and server_name_of(user_id) == self._server_name:
                # People write their names with a capital; accounts have none.
                account = await find_account(connection, user_id.lower())
        matches = await self._passwords.matches(password, account.password_hash if account else None)
        if account is not None and account.deactivated_at is not None:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated.")
        if account is None or not matches:
            self._limits.charge("login", f"account {user_id}")
            raise forbidden("Invalid username or password.")
        return account


def user_of_identifier(body: Body) -> str:
    """The name in `identifier`, or in the `user` that came before it."""
    identifier = json_object(body, "identifier")
    if identifier is None:
        user = text(body, "user")
        if user is not None:
            return user
        if text(body, "medium") is not None or text(body, "address") is not None:
            raise forbidden("This server knows no third-party identifiers.")
        raise missing_param("identifier is missing.")
    kind = required_text(identifier, "type")
    if kind in ("m.id.thirdparty", "m.id.phone"):
        raise forbidden("This server knows no third-party identifiers.")
    if kind != "m.id.user":
        raise unknown(400, "Unknown type of identifier.")
    return required_text(identifier, "user")


class Login:
    """GET and POST /login."""

    public_methods: ClassVar = PUBLIC

    def __init__(self, pool: Pool, check: PasswordCheck, logins: Logins, limits: RateLimits, server_name: str) -> None:
        self._pool = pool
        self._check = check
        self._logins = logins
        self._limits = limits
        self._server_name = server_name

    async def on_get(self, req: Request, resp: Response) -> None:
        """The login types there are."""
        resp.media = {"flows": [{"type": "m.login.password"}]}

    async def on_post(self, req: Request, resp: Response) -> None:
        """Logs a device in."""
        body = await read_body(req)
        if required_text(body, "type") != "m.login.password":
            raise unknown(400, "Unknown login type.")
        name, password = user_of_identifier(body), required_text(body, "password")
        device = device_of(body)
        self._limits.take("login", f"address {address_of(req)}")
        account = await self._check.account(name, password)
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
        self._limits.check("login", f"refresh {address_of(req)}")
        try:
            resp.media = await self._logins.refresh(token)
        except MatrixError:
            self._limits.charge("login", f"refresh {address_of(req)}")
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
