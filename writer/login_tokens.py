"""Login tokens: a logged-in client lets another one in.

Invariant: a token logs in once, within its time, and giving one out needs the password each time; only its hash is kept.
Source: client-server API, "POST /_matrix/client/v1/login/get_token", "Login".
"""

from __future__ import annotations

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import new_token, token_hash
from eventlog.settings import Sessions
from matrix.errors import forbidden, unknown, user_locked
from writer.accounts import Account, find_account
from writer.authentication import PasswordAuthentication
from writer.rate_limits import RateLimits
from writer.requests import read_body, session_of

SQL = Queries("writer", "login_tokens.sql")


class LoginTokens:
    """Gives tokens out and takes them back."""

    def __init__(self, pool: Pool, settings: Sessions) -> None:
        self._pool = pool
        self.enabled = settings.login_tokens
        self.seconds = settings.login_token_seconds

    async def give_out(self, user_id: str) -> str:
        """A token that logs the user in once."""
        token = new_token()
        values = {"token_hash": token_hash(token), "user_id": user_id, "seconds": self.seconds}
        async with self._pool.connection() as connection:
            await connection.execute(SQL["give_out"], values)
        return token

    async def account(self, token: str) -> Account:
        """Uses a token up; whose it was. M_FORBIDDEN if it is none, M_USER_LOCKED."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["use"], {"token_hash": token_hash(token)})).fetchone()
            account = await find_account(connection, row[0]) if row is not None and row[1] else None
        if account is None or account.deactivated_at is not None:
            raise forbidden("Invalid login token.")
        if account.locked:
            raise user_locked()
        return account


class GetLoginToken:
    """POST /login/get_token."""

    def __init__(self, tokens: LoginTokens, authentication: PasswordAuthentication, limits: RateLimits) -> None:
        self._tokens = tokens
        self._authentication = authentication
        self._limits = limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """Gives a token out to who has given their password again."""
        session, body = session_of(req), await read_body(req, optional=True)
        if not self._tokens.enabled:
            raise unknown(400, "This server gives out no login tokens.")
        session_id = await self._authentication.require(req, body, "/login/get_token")
        self._limits.take("login", f"token of {session.user_id}")
        token = await self._tokens.give_out(session.user_id)
        await self._authentication.end(session_id)
        resp.media = {"login_token": token, "expires_in_ms": round(self._tokens.seconds * 1000)}
