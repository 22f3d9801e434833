"""Third-party identifiers of the requester's account.

Invariant: an identifier belongs to one account, whose owner has shown to have it. Nothing is ever bound to an identity server: this
server asks none, and says so. Source: client-server API, "Adding Account Administrative Contact Information".
"""

from __future__ import annotations

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import MatrixError, invalid_param, missing_param, too_large
from writer.authentication import PasswordAuthentication
from writer.email_addresses import fold_address
from writer.requests import Body, json_object, read_body, required_text, session_of, text
from writer.validations import Validations, in_use

SQL = Queries("writer", "threepids.sql")

MOST_OF_A_USER = 20
MEDIUMS = ("email", "msisdn")


async def add_threepid(connection: AsyncConnection, user_id: str, address: str, validated_at: float) -> None:
    """Adds an e-mail address, validated at a time in seconds since 1970, to an account. M_THREEPID_IN_USE."""
    row = await (await connection.execute(SQL["count"], {"user_id": user_id})).fetchone()
    if row is not None and row[0] >= MOST_OF_A_USER:
        raise too_large(f"An account may have {MOST_OF_A_USER} third-party identifiers.")
    values = {"medium": "email", "address": address, "user_id": user_id, "validated_at": validated_at}
    if await (await connection.execute(SQL["add"], values)).fetchone() is None:
        raise in_use()


class ThirdPartyIdentifiers:
    """/account/3pid and /add, /bind, /delete, /unbind below it."""

    def __init__(self, pool: Pool, validations: Validations, authentication: PasswordAuthentication) -> None:
        self._pool = pool
        self._validations = validations
        self._authentication = authentication

    async def on_get(self, req: Request, resp: Response) -> None:
        """All of the requester's."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["of_user"], {"user_id": session_of(req).user_id, "most": MOST_OF_A_USER}
            )
            resp.media = {
                "threepids": [
                    {"medium": medium, "address": address, "validated_at": validated_at, "added_at": added_at}
                    for medium, address, validated_at, added_at in await cursor.fetchall()
                ]
            }

    async def on_post(self, req: Request, resp: Response) -> None:
        """What came before /bind: no identity server is asked, so nothing can be verified with one."""
        body = await read_body(req)
        # "three_pid_creds"; some clients write "threePidCreds".
        creds = json_object(body, "three_pid_creds") or json_object(body, "threePidCreds")
        if creds is None:
            raise missing_param("three_pid_creds is missing.")
        required_text(creds, "client_secret")
        required_text(creds, "sid")
        raise MatrixError(403, "M_THREEPID_AUTH_FAILED", "This server asks no identity server to verify credentials.")

    async def on_post_add(self, req: Request, resp: Response) -> None:
        """Adds an identifier that was validated here."""
        session, body = session_of(req), await read_body(req)
        client_secret, sid = required_text(body, "client_secret"), required_text(body, "sid")
        session_id = await self._authentication.require(req, body, "/account/3pid/add")
        found = await self._validations.validated("add", sid, client_secret)
        if found is None:
            raise MatrixError(400, "M_THREEPID_AUTH_FAILED", "The address has not been validated.")
        async with self._pool.connection() as connection, connection.transaction():
            await add_threepid(connection, session.user_id, found.address, found.at.timestamp())
        await self._validations.end(sid)
        await self._authentication.end(session_id)
        resp.media = {}

    async def on_post_bind(self, req: Request, resp: Response) -> None:
        """Binds nothing: no identity server is trusted."""
        body = await read_body(req)
        for name in ("client_secret", "id_server", "id_access_token", "sid"):
            required_text(body, name)
        raise MatrixError(400, "M_SERVER_NOT_TRUSTED", "This server trusts no identity server.")

    async def on_post_delete(self, req: Request, resp: Response) -> None:
        """Removes an identifier; one that the account does not have is no error."""
        medium, address = _identifier(await read_body(req))
        async with self._pool.connection() as connection:
            values = {"medium": medium, "address": address, "user_id": session_of(req).user_id}
            await connection.execute(SQL["delete"], values)
        resp.media = _UNBOUND

    async def on_post_unbind(self, req: Request, resp: Response) -> None:
        """Unbinds nothing: it is not known which identity server an identifier would be bound to."""
        _identifier(await read_body(req))
        resp.media = _UNBOUND


# "If the homeserver does not know the original id_server, it MUST return a id_server_unbind_result of no-support."
_UNBOUND = {"id_server_unbind_result": "no-support"}


def _identifier(body: Body) -> tuple[str, str]:
    medium, address = required_text(body, "medium"), required_text(body, "address")
    text(body, "id_server")
    if medium not in MEDIUMS:
        raise invalid_param("medium must be email or msisdn.")
    if "\0" in address:
        raise invalid_param("address must not contain the character U+0000.")
    return medium, fold_address(address) if medium == "email" else address
