"""Making accounts: with an open door, or with a registration token.

Invariant: a user name is checked before authentication and again by the statement that makes the account; a registration token is
used up in the same transaction. Source: client-server API, "Account registration", "Token-authenticated registration".
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.settings import Settings
from matrix.errors import MatrixError, forbidden, invalid_param, user_in_use
from matrix.identifiers import check_local_user_id, is_opaque_identifier
from writer.accounts import find_account, insert_account
from writer.interactive import Interactive, Stage
from writer.login import address_of, device_of
from writer.logins import Logins
from writer.passwords import Passwords
from writer.rate_limits import RateLimits
from writer.requests import boolean, read_body, required_text, text

SQL = Queries("writer", "registration.sql")
TOKEN_STAGE = "m.login.registration_token"
MOST_PASSWORD_CHARACTERS = 4096

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Registration:
    """POST /register, GET /register/available, GET /register/m.login.registration_token/validity."""

    public_methods: ClassVar = frozenset({"GET", "POST"})

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        interactive: Interactive,
        passwords: Passwords,
        logins: Logins,
        limits: RateLimits,
    ) -> None:
        self._mode = settings.registration.mode
        self._server_name = settings.server.name
        self._pool = pool
        self._interactive = interactive
        self._passwords = passwords
        self._logins = logins
        self._limits = limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """Makes an account, once authenticated, and logs its first device in."""
        kind = req.get_param("kind") or "user"
        if kind == "guest":
            raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "This server has no guest accounts.")
        if kind != "user":
            raise invalid_param("kind must be user or guest.")
        body = await read_body(req)
        if body.get("type") == "m.login.application_service":
            # Those that are configured present their token; none is.
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "This server knows no such application service.")
        if self._mode not in ("open", "token"):
            raise forbidden("Registration is disabled.")
        username = text(body, "username")
        password = check_password(text(body, "password"))
        device = device_of(body)
        inhibit_login = boolean(body, "inhibit_login")
        user_id = await self._free_user_id(username)
        flows = [[TOKEN_STAGE]] if self._mode == "token" else [["m.login.dummy"]]
        stages: dict[str, Stage] = {"m.login.dummy": _dummy, TOKEN_STAGE: self._token_stage}
        if body.get("auth") is not None:
            self._limits.take("registration", address_of(req))
        session_id, left = await self._interactive.require(["POST", "/register"], body.get("auth"), flows, stages)
        hashed = None if password is None else await self._passwords.hash(password)
        async with self._pool.connection() as connection, connection.transaction():
            if self._mode == "token":
                cursor = await connection.execute(SQL["use_token"], {"token": left["token"]})
                if await cursor.fetchone() is None:
                    raise forbidden("The registration token has been used up.")
            await insert_account(connection, user_id, hashed)
            answer: dict[str, object] = {"user_id": user_id}
            if not inhibit_login:
                answer = await self._logins.begin(
                    connection, user_id, password_hash=hashed, address=address_of(req) or None, **device
                )
        await self._interactive.end(session_id)
        resp.media = {**answer, "home_server": self._server_name}

    async def on_get_available(self, req: Request, resp: Response) -> None:
        """Whether a user name can be registered."""
        username = req.get_param("username", required=True)
        await self._free_user_id(username)
        resp.media = {"available": True}

    async def on_get_validity(self, req: Request, resp: Response) -> None:
        """Whether a registration token may be used."""
        token = req.get_param("token", required=True)
        if self._mode != "token":
            raise forbidden("This server does not register with tokens.")
        self._limits.take("registration", f"token {address_of(req)}")
        resp.media = {"valid": await self._is_valid(token)}

    async def _free_user_id(self, username: str | None) -> str:
        if username is None:
            username = "".join(secrets.choice(_LETTERS) for _ in range(12))
        user_id = check_local_user_id(username, self._server_name)
        async with self._pool.connection() as connection:
            if await find_account(connection, user_id) is not None:
                raise user_in_use()
        return user_id

    async def _is_valid(self, token: str) -> bool:
        # "…the registration token… follows the opaque identifier grammar", of at most 64 characters.
        if not is_opaque_identifier(token) or len(token) > 64:
            return False
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["token"], {"token": token})).fetchone()
        return row is not None and bool(row[0])

    async def _token_stage(self, auth: dict[str, Any]) -> dict[str, Any]:
        token = required_text(auth, "token")
        if not await self._is_valid(token):
            raise forbidden("Invalid registration token.")
        return {"token": token}


async def _dummy(auth: dict[str, Any]) -> dict[str, Any]:
    return {}


def check_password(password: str | None) -> str | None:
    """The password, if it can be one."""
    if password == "":
        raise MatrixError(400, "M_WEAK_PASSWORD", "The password is empty.")
    if password is not None and len(password) > MOST_PASSWORD_CHARACTERS:
        raise invalid_param(f"A password may have {MOST_PASSWORD_CHARACTERS} characters.")
    return password
