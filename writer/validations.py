"""Validating e-mail addresses: a message with a link, and what follows when it is opened.

Invariant: a validation is for one purpose and used once; it is known by its id together with the client's secret, and validated
by a token that only the message had. Unless the settings say otherwise, nobody learns here whether an address has an account:
whoever asks is told that a message was sent, and the message says it.
Source: client-server API, "POST …/email/requestToken", "Email-based (identity / homeserver)".
"""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import new_token, token_hash
from eventlog.settings import Settings
from matrix.errors import MatrixError, forbidden, invalid_param, missing_param
from matrix.identifiers import is_validation_secret, new_opaque_id
from writer import mail_texts
from writer.accounts import find_account, owner_of
from writer.interactive import Stage
from writer.mail import Mailer
from writer.requests import Body, json_object, required_text

SQL = Queries("writer", "validations.sql")

EMAIL_STAGE = "m.login.email.identity"
SUBMIT_PATH = "/_walden/client/email/submit_token"
TOKEN_SECONDS = 3600.0
"""How long a link is good for."""
VALIDATED_SECONDS = 86_400.0
"""How long an address counts as validated."""

Purpose = Literal["register", "password", "add"]


class Pending(NamedTuple):
    """What a link is about."""

    purpose: str
    address: str
    token_hash: bytes | None
    next_link: str | None
    expired: bool
    validated: bool


class Validated(NamedTuple):
    """An address that its owner has shown to have."""

    sid: str
    address: str
    at: datetime


class Validations:
    """Begins, completes and uses validations. `enabled` is whether messages can be sent."""

    def __init__(self, pool: Pool, settings: Settings, mailer: Mailer) -> None:
        self._pool = pool
        self._mailer = mailer
        self._base_url = settings.base_url
        self._server_name = settings.server.name
        self._reveal = settings.email.reveal_addresses
        self.enabled = mailer.enabled

    async def begin(
        self, purpose: Purpose, address: str, client_secret: str, send_attempt: int, next_link: str | None
    ) -> str:
        """Sends a message, unless this attempt has been made; returns the validation's id (`sid`).

        Where addresses are revealed: M_THREEPID_IN_USE or M_THREEPID_NOT_FOUND.
        """
        async with self._pool.connection() as connection:
            owner = await owner_of(connection, "email", address)
            key = {"purpose": purpose, "address": address, "client_secret": client_secret}
            known = await (await connection.execute(SQL["known"], key)).fetchone()
            wrong = (owner is None) == (purpose == "password")
            if wrong and self._reveal:
                raise _not_found() if owner is None else in_use()
            if known is not None and known[1] >= send_attempt:
                return str(known[0])
            token = None if wrong else new_token()
            values = {
                **key,
                "sid": new_opaque_id(24),
                "token_hash": None if token is None else token_hash(token),
                "send_attempt": send_attempt,
                "next_link": next_link,
            }
            row = await (await connection.execute(SQL["begin"], values)).fetchone()
            if row is None:
                # Another request has made a later attempt in the same moment.
                known = await (await connection.execute(SQL["known"], key)).fetchone()
                return str(known[0] if known is not None else values["sid"])
        sid: str = row[0]
        try:
            await self._mailer.send(address, self._letter(purpose, sid, client_secret, token))
        except MatrixError:
            async with self._pool.connection() as connection:
                await connection.execute(SQL["take_back"], {"sid": sid, "send_attempt": send_attempt})
            raise
        return sid

    def _letter(self, purpose: Purpose, sid: str, client_secret: str, token: str | None) -> mail_texts.Letter:
        if token is not None:
            query = urlencode({"sid": sid, "client_secret": client_secret, "token": token})
            return mail_texts.confirm(purpose, self._server_name, f"{self._base_url}{SUBMIT_PATH}?{query}")
        if purpose == "password":
            return mail_texts.not_known(self._server_name)
        return mail_texts.already_in_use(self._server_name)

    async def pending(self, sid: str, client_secret: str, token: str) -> Pending:
        """What a link is about. M_INVALID_PARAM, M_TOKEN_INCORRECT, M_SESSION_EXPIRED."""
        if not is_validation_secret(sid) or not is_validation_secret(client_secret):
            raise invalid_param("sid or client_secret cannot be right.")
        values = {"sid": sid, "client_secret": client_secret, "seconds": TOKEN_SECONDS}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["pending"], values)).fetchone()
        if row is None:
            raise MatrixError(400, "M_SESSION_EXPIRED", "There is no such validation, or its time is over.")
        found = Pending(*row)
        if found.token_hash is None or not hmac.compare_digest(bytes(found.token_hash), token_hash(token)):
            raise MatrixError(400, "M_TOKEN_INCORRECT", "The token is not right.")
        if found.expired:
            raise MatrixError(400, "M_SESSION_EXPIRED", "The time of this link is over.")
        return found

    async def complete(self, sid: str, client_secret: str, token: str) -> Pending:
        """Notes that a token came back; refuses like `pending`."""
        found = await self.pending(sid, client_secret, token)
        values = {"sid": sid, "token_hash": token_hash(token), "seconds": TOKEN_SECONDS}
        async with self._pool.connection() as connection:
            if await (await connection.execute(SQL["validate"], values)).fetchone() is None:
                raise MatrixError(400, "M_SESSION_EXPIRED", "The time of this link is over.")
        return found

    async def validated(self, purpose: Purpose, sid: str, client_secret: str) -> Validated | None:
        """The address that a client has had validated, None if it has not."""
        if not is_validation_secret(sid) or not is_validation_secret(client_secret):
            return None
        values = {"purpose": purpose, "sid": sid, "client_secret": client_secret, "seconds": VALIDATED_SECONDS}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["validated"], values)).fetchone()
        return None if row is None else Validated(sid, *row)

    async def end(self, sid: str) -> None:
        """Ends a validation that has been used."""
        async with self._pool.connection() as connection:
            await connection.execute(SQL["end"], {"sid": sid})

    def register_stage(self) -> Stage:
        """The stage of who registers with an address; leaves `sid` and `email`."""

        async def check(auth: dict[str, Any]) -> dict[str, Any]:
            found = await self._of_auth("register", auth)
            return {"sid": found.sid, "email": found.address, "validated_at": found.at.timestamp()}

        return check

    def reset_stage(self, user_id: str | None) -> Stage:
        """The stage of who has lost the password of an account, of a given user's if one is; leaves `sid` and `user_id`."""

        async def check(auth: dict[str, Any]) -> dict[str, Any]:
            found = await self._of_auth("password", auth)
            async with self._pool.connection() as connection:
                owner = await owner_of(connection, "email", found.address)
                account = None if owner is None else await find_account(connection, owner)
            if account is None or account.deactivated_at is not None or account.locked:
                raise forbidden("No account in use has this address.")
            if user_id is not None and account.user_id != user_id:
                raise forbidden("That is another user's address.")
            return {"sid": found.sid, "user_id": account.user_id}

        return check

    async def _of_auth(self, purpose: Purpose, auth: Body) -> Validated:
        # Clients write it both ways; the specification's "threepid_creds" came second.
        creds = json_object(auth, "threepid_creds") or json_object(auth, "threepidCreds")
        if creds is None:
            raise missing_param("threepid_creds is missing.")
        found = await self.validated(purpose, required_text(creds, "sid"), required_text(creds, "client_secret"))
        if found is None:
            raise MatrixError(401, "M_UNAUTHORIZED", "The address has not been validated yet.")
        return found


def in_use() -> MatrixError:
    """A third-party identifier that an account has."""
    return MatrixError(400, "M_THREEPID_IN_USE", "This address belongs to an account already.")


def _not_found() -> MatrixError:
    return MatrixError(400, "M_THREEPID_NOT_FOUND", "No account has this address.")
