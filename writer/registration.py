"""Making accounts: with an open door, with a registration token, with a validated e-mail address; and for guests.

Invariant: a user name is checked before authentication and again by the statement that makes the account; a registration token is
used up in the same transaction. Source: client-server API, "Account registration", "Token-authenticated registration", "Terms of
service at registration", "Guest access".
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import SessionCache
from eventlog.settings import Settings
from matrix.errors import MatrixError, forbidden, invalid_param, user_in_use
from matrix.identifiers import check_local_user_id, is_opaque_identifier, lower_case
from writer.accounts import find_account, insert_account, upgrade_guest
from writer.interactive import Interactive, Stage
from writer.login import address_of, caller_of, device_of
from writer.logins import Logins
from writer.passwords import Passwords, check_password
from writer.rate_limits import RateLimits
from writer.requests import Body, boolean, read_body, required_text, short, text
from writer.server_notices import notices_id
from writer.threepids import add_threepid
from writer.validations import EMAIL_STAGE, Validations

SQL = Queries("writer", "registration.sql")
DUMMY_STAGE = "m.login.dummy"
TERMS_STAGE = "m.login.terms"
TOKEN_STAGE = "m.login.registration_token"
REQUEST = ("POST", "/register")
"""What an authentication session of a registration is for."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class RegistrationStages:
    """The flows of a registration, as the settings have them, and what completes their stages."""

    def __init__(self, settings: Settings, pool: Pool, validations: Validations) -> None:
        registration = settings.registration
        self._pool = pool
        self.open = registration.mode in ("open", "token")
        self.by_token = registration.mode == "token"
        first = ([TOKEN_STAGE] if self.by_token else []) + ([TERMS_STAGE] if registration.terms_url else [])
        email = registration.email if validations.enabled else "off"
        plain = first if first and email == "off" else [*first, DUMMY_STAGE]
        self.flows = ([plain] if email != "required" else []) + ([[*first, EMAIL_STAGE]] if email != "off" else [])
        self.stages: dict[str, Stage] = {
            DUMMY_STAGE: _agreed,
            TERMS_STAGE: _agreed,
            TOKEN_STAGE: self._token,
            EMAIL_STAGE: validations.register_stage(),
        }
        self.terms = (registration.terms_name, registration.terms_url)
        policy = {"version": registration.terms_version, "en": dict(zip(("name", "url"), self.terms, strict=True))}
        self.params: dict[str, object] = (
            {TERMS_STAGE: {"policies": {"terms_of_service": policy}}} if registration.terms_url else {}
        )

    async def is_valid(self, token: str) -> bool:
        """Whether a registration token may be used now."""
        # "…the registration token… follows the opaque identifier grammar", of at most 64 characters.
        if not is_opaque_identifier(token) or len(token) > 64:
            return False
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["token"], {"token": token})).fetchone()
        return row is not None and bool(row[0])

    async def _token(self, auth: dict[str, Any]) -> dict[str, Any]:
        token = required_text(auth, "token")
        if not await self.is_valid(token):
            raise forbidden("Invalid registration token.")
        return {"token": token}


async def _agreed(auth: dict[str, Any]) -> dict[str, Any]:
    return {}


class Registration:
    """POST /register, GET /register/available, GET /register/m.login.registration_token/validity."""

    public_methods: ClassVar = frozenset({"GET", "POST"})

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        stages: RegistrationStages,
        interactive: Interactive,
        validations: Validations,
        passwords: Passwords,
        sessions: SessionCache,
        logins: Logins,
        limits: RateLimits,
    ) -> None:
        self._guests = settings.registration.guests
        self._server_name = settings.server.name
        self._reserved = notices_id(settings)
        self._pool = pool
        self._stages = stages
        self._interactive = interactive
        self._validations = validations
        self._passwords = passwords
        self._sessions = sessions
        self._logins = logins
        self._limits = limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """Makes an account, once authenticated, and logs its first device in."""
        kind = req.get_param("kind") or "user"
        if kind == "guest":
            await self._register_guest(req, resp)
            return
        if kind != "user":
            raise invalid_param("kind must be user or guest.")
        body = await read_body(req)
        if body.get("type") == "m.login.application_service":
            # Those that are configured present their token; none is.
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "This server knows no such application service.")
        if not self._stages.open:
            raise forbidden("Registration is disabled.")
        username = text(body, "username")
        password = check_password(text(body, "password"))
        device = device_of(body)
        inhibit_login = boolean(body, "inhibit_login")
        guest_token = text(body, "guest_access_token")
        user_id = await self._upgraded(guest_token, username) if guest_token else await self._free_user_id(username)
        if body.get("auth") is not None:
            self._limits.take("registration", caller_of(req))
        session_id, left = await self._interactive.require(
            REQUEST, body.get("auth"), self._stages.flows, self._stages.stages, self._stages.params
        )
        hashed = None if password is None else await self._passwords.hash(password)
        async with self._pool.connection() as connection, connection.transaction():
            await self._use_up(connection, left)
            if guest_token:
                await upgrade_guest(connection, user_id, hashed)
            else:
                await insert_account(connection, user_id, hashed)
            if "email" in left:
                await add_threepid(connection, user_id, left["email"], left["validated_at"])
            answer: dict[str, object] = {"user_id": user_id}
            if not inhibit_login:
                answer = await self._logins.begin(
                    connection, user_id, password_hash=hashed, address=address_of(req) or None, **device
                )
        self._sessions.forget(user_id)
        if "sid" in left:
            await self._validations.end(left["sid"])
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
        if not self._stages.by_token:
            raise forbidden("This server does not register with tokens.")
        self._limits.take("registration", f"token {caller_of(req)}")
        resp.media = {"valid": await self._stages.is_valid(token)}

    async def _register_guest(self, req: Request, resp: Response) -> None:
        body: Body = await req.get_media({})
        if not self._guests:
            raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "This server has no guest accounts.")
        # "All parameters in the request body with the exception of initial_device_display_name MUST BE ignored."
        name = body.get("initial_device_display_name") if isinstance(body, dict) else None
        display_name = short("initial_device_display_name", name if isinstance(name, str) else None)
        self._limits.take("registration", caller_of(req))
        user_id = await self._free_user_id(None)
        async with self._pool.connection() as connection, connection.transaction():
            await insert_account(connection, user_id, None, guest=True)
            answer = await self._logins.begin(
                connection,
                user_id,
                password_hash=None,
                device_id=None,
                display_name=display_name,
                refreshable=False,
                address=address_of(req) or None,
            )
        resp.media = {**answer, "home_server": self._server_name}

    async def _upgraded(self, guest_token: str, username: str | None) -> str:
        """The user id of the guest who becomes a user: "They are also required to specify the username parameter"."""
        session = await self._sessions.session(guest_token)
        if not session.guest:
            raise forbidden("guest_access_token is not a guest's.")
        if username is None or f"@{username}:{self._server_name}" != session.user_id:
            raise forbidden("username is not the guest's.")
        return session.user_id

    async def _free_user_id(self, username: str | None) -> str:
        if username is None:
            username = "".join(secrets.choice(_LETTERS) for _ in range(12))
        user_id = check_local_user_id(lower_case(username), self._server_name)
        if user_id == self._reserved:
            raise user_in_use()
        async with self._pool.connection() as connection:
            if await find_account(connection, user_id) is not None:
                raise user_in_use()
        return user_id

    async def _use_up(self, connection: AsyncConnection, left: dict[str, Any]) -> None:
        if "token" in left:
            cursor = await connection.execute(SQL["use_token"], {"token": left["token"]})
            if await cursor.fetchone() is None:
                raise forbidden("The registration token has been used up.")
