"""Registration with the shared secret: a MAC over a nonce, the name and the password, for scripts of the operator's.

Invariant: a nonce is the server's own, less than a minute old, and known by its MAC, so that any process can check what another
gave out; that an account can be made only once makes replays idle. The path and the message are those of Synapse's admin API,
for the tools that speak it.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.settings import Settings
from matrix.errors import MatrixError, bad_json, forbidden, unknown, user_in_use
from matrix.identifiers import check_local_user_id, lower_case
from writer.accounts import insert_account
from writer.login import address_of, caller_of
from writer.logins import Logins
from writer.passwords import Passwords, check_password
from writer.rate_limits import RateLimits
from writer.requests import boolean, read_body, required_text, text
from writer.server_notices import notices_id

NONCE_SECONDS = 60


class SharedSecretRegistration:
    """GET and POST /_synapse/admin/v1/register."""

    public_methods: ClassVar = frozenset({"GET", "POST"})

    def __init__(
        self, settings: Settings, pool: Pool, passwords: Passwords, logins: Logins, limits: RateLimits
    ) -> None:
        registration = settings.registration
        self._secret = "" if registration.mode == "off" else registration.shared_secret
        self._server_name = settings.server.name
        self._reserved = notices_id(settings)
        self._pool = pool
        self._passwords = passwords
        self._logins = logins
        self._limits = limits

    async def on_get(self, req: Request, resp: Response) -> None:
        """A nonce."""
        self._check_enabled()
        resp.media = {"nonce": self._nonce(f"{int(time.time())}-{secrets.token_hex(16)}")}

    async def on_post(self, req: Request, resp: Response) -> None:
        """Makes an account and logs a device in."""
        self._check_enabled()
        body = await read_body(req)
        nonce, username = required_text(body, "nonce"), required_text(body, "username")
        password = check_password(required_text(body, "password")) or ""
        admin, user_type = boolean(body, "admin"), text(body, "user_type")
        mac = required_text(body, "mac")
        if "\0" in username or "\0" in password:
            raise bad_json("username and password must not contain the character U+0000.")
        caller = f"shared secret {caller_of(req)}"
        self._limits.check("registration", caller)
        if not self._is_fresh(nonce):
            raise unknown(400, "Unrecognised nonce.")
        parts = [nonce, username, password, "admin" if admin else "notadmin", *([user_type] if user_type else [])]
        wanted = hmac.new(self._secret.encode(), "\0".join(parts).encode(), "sha1").hexdigest()
        if not hmac.compare_digest(wanted.encode(), mac.lower().encode()):
            self._limits.charge("registration", caller)
            raise forbidden("The MAC is not right.")
        user_id = check_local_user_id(lower_case(username), self._server_name)
        if user_id == self._reserved:
            raise user_in_use()
        hashed = await self._passwords.hash(password)
        async with self._pool.connection() as connection, connection.transaction():
            await insert_account(connection, user_id, hashed, admin=admin)
            answer = await self._logins.begin(
                connection,
                user_id,
                password_hash=hashed,
                device_id=None,
                display_name=None,
                refreshable=False,
                address=address_of(req) or None,
            )
        resp.media = {**answer, "home_server": self._server_name}

    def _check_enabled(self) -> None:
        if not self._secret:
            raise MatrixError(400, "M_UNKNOWN", "Registration with a shared secret is not enabled.")

    def _nonce(self, stem: str) -> str:
        return f"{stem}-{hmac.new(self._secret.encode(), b'nonce ' + stem.encode(), 'sha256').hexdigest()}"

    def _is_fresh(self, nonce: str) -> bool:
        stem = nonce.rpartition("-")[0]
        made_at = stem.partition("-")[0]
        if not hmac.compare_digest(self._nonce(stem).encode(), nonce.encode()) or not made_at.isdecimal():
            return False
        return 0 <= time.time() - int(made_at) <= NONCE_SECONDS
