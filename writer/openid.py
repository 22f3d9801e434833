"""OpenID tokens: a third party learns who a user is, and nothing else.

Invariant: the token opens nothing here but its user's id; only its hash is kept.
Source: client-server API, "OpenID"; server-server API, "OpenID".
"""

from __future__ import annotations

from typing import ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import new_token, token_hash
from matrix.errors import unknown_token
from writer.rate_limits import RateLimits
from writer.requests import check_own, read_body, session_of

SQL = Queries("writer", "openid.sql")

SECONDS = 3600


class OpenIdTokens:
    """POST /user/{user_id}/openid/request_token."""

    def __init__(self, pool: Pool, limits: RateLimits, server_name: str) -> None:
        self._pool = pool
        self._limits = limits
        self._server_name = server_name

    async def on_post(self, req: Request, resp: Response, user_id: str) -> None:
        """Gives a token out."""
        await read_body(req, optional=True)
        check_own(session_of(req), user_id)
        self._limits.take("message", user_id)
        token = new_token()
        async with self._pool.connection() as connection:
            values = {"token_hash": token_hash(token), "user_id": user_id, "seconds": SECONDS}
            await connection.execute(SQL["give_out"], values)
        resp.media = {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": SECONDS,
        }


class OpenIdUserInfo:
    """GET /_matrix/federation/v1/openid/userinfo, which third parties ask without a signature."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_get(self, req: Request, resp: Response) -> None:
        """Whose a token is."""
        token = req.get_param("access_token", required=True)
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["owner"], {"token_hash": token_hash(token)})).fetchone()
        if row is None:
            raise unknown_token("The token is not known, or its time is over.")
        resp.media = {"sub": row[0]}
