"""The requester's own account: who am I, deactivate.

Invariant: what could lock its owner out needs the password, not just a token. Source: client-server API, "Account management".
"""

from __future__ import annotations

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.sessions import SessionCache
from writer.accounts import deactivate_account
from writer.authentication import PasswordAuthentication
from writer.departures import LEASE_SECONDS, Departures
from writer.requests import boolean, read_body, session_of, text


class Account:
    """/account/whoami, /account/deactivate."""

    def __init__(
        self, pool: Pool, sessions: SessionCache, departures: Departures, authentication: PasswordAuthentication
    ) -> None:
        self._pool = pool
        self._sessions = sessions
        self._departures = departures
        self._authentication = authentication

    async def on_get_whoami(self, req: Request, resp: Response) -> None:
        """Whose the access token is."""
        session = session_of(req)
        resp.media = {"user_id": session.user_id, "device_id": session.device_id, "is_guest": session.guest}

    async def on_post_deactivate(self, req: Request, resp: Response) -> None:
        """Ends the account for good, leaves its rooms, and erases it if asked to."""
        session, body = session_of(req), await read_body(req, optional=True)
        text(body, "id_server")
        erase = boolean(body, "erase")
        session_id = await self._authentication.require(req, body, "/account/deactivate")
        async with self._pool.connection() as connection:
            await deactivate_account(connection, session.user_id, erase=erase, grace_seconds=LEASE_SECONDS)
        self._sessions.forget(session.user_id)
        await self._authentication.end(session_id)
        await self._departures.finish(session.user_id, erase)
        # "This must be success if the homeserver has no identifiers to unbind": none was ever bound from here.
        resp.media = {"id_server_unbind_result": "success"}
