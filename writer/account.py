"""The requester's own account: who am I, change the password, deactivate.

Invariant: what could lock its owner out needs the password, not just a token. Source: client-server API, "Account management".
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.sessions import Session, SessionCache
from matrix.errors import forbidden
from writer.accounts import deactivate_account, set_password
from writer.drafts import Draft
from writer.interactive import Interactive, Stage
from writer.log_writer import LogWriter
from writer.login import PasswordCheck, user_of_identifier
from writer.passwords import Passwords
from writer.registration import check_password
from writer.requests import Body, boolean, read_body, required_text, session_of, text
from writer.rooms_of_user import in_every_room, rooms_of_user


class PasswordAuthentication:
    """Lets a request through once the requester has given their password again."""

    def __init__(self, interactive: Interactive, check: PasswordCheck) -> None:
        self._interactive = interactive
        self._check = check

    async def require(self, req: Request, body: Body, path: str) -> str:
        """The id of the authentication session, to be ended when the request has been carried out."""
        session = session_of(req)
        stages: dict[str, Stage] = {"m.login.password": lambda auth: self._stage(session, auth)}
        session_id, _ = await self._interactive.require(
            [req.method, path, session.user_id], body.get("auth"), [["m.login.password"]], stages
        )
        return session_id

    async def end(self, session_id: str) -> None:
        """Ends the authentication session."""
        await self._interactive.end(session_id)

    async def _stage(self, session: Session, auth: dict[str, Any]) -> dict[str, Any]:
        account = await self._check.account(user_of_identifier(auth), required_text(auth, "password"))
        if account.user_id != session.user_id:
            raise forbidden("That is another user's password.")
        return {}


class Account:
    """/account/whoami, /account/password, /account/deactivate, /account/3pid."""

    def __init__(
        self,
        pool: Pool,
        log: LogWriter,
        sessions: SessionCache,
        passwords: Passwords,
        authentication: PasswordAuthentication,
    ) -> None:
        self._pool = pool
        self._log = log
        self._sessions = sessions
        self._passwords = passwords
        self._authentication = authentication

    async def on_get_whoami(self, req: Request, resp: Response) -> None:
        """Whose the access token is."""
        session = session_of(req)
        resp.media = {"user_id": session.user_id, "device_id": session.device_id, "is_guest": session.guest}

    async def on_get_threepids(self, req: Request, resp: Response) -> None:
        """The account's third-party identifiers: this server keeps none."""
        resp.media = {"threepids": []}

    async def on_post_password(self, req: Request, resp: Response) -> None:
        """Changes the password; other devices are logged out unless the request says otherwise."""
        session, body = session_of(req), await read_body(req)
        password = check_password(required_text(body, "new_password")) or ""
        logout_devices = boolean(body, "logout_devices", True)
        session_id = await self._authentication.require(req, body, "/account/password")
        async with self._pool.connection() as connection:
            await set_password(
                connection,
                session.user_id,
                password,
                logout_devices=logout_devices,
                kept_device=session.device_id,
                passwords=self._passwords,
            )
        self._sessions.forget(session.user_id)
        await self._authentication.end(session_id)
        resp.media = {}

    async def on_post_deactivate(self, req: Request, resp: Response) -> None:
        """Ends the account for good, after leaving its rooms."""
        session, body = session_of(req), await read_body(req, optional=True)
        text(body, "id_server")
        erase = boolean(body, "erase")
        session_id = await self._authentication.require(req, body, "/account/deactivate")
        await leave_all_rooms(self._pool, self._log, session.user_id)
        if erase:
            await self._log.append_entry(type="erase", user_id=session.user_id, content={})
        async with self._pool.connection() as connection:
            await deactivate_account(connection, session.user_id)
        self._sessions.forget(session.user_id)
        # Whatever was joined in between.
        await leave_all_rooms(self._pool, self._log, session.user_id)
        await self._authentication.end(session_id)
        resp.media = {"id_server_unbind_result": "success"}


async def leave_all_rooms(pool: Pool, log: LogWriter, user_id: str) -> None:
    """Leaves every room a user is in, invited to or knocking on."""

    async def leave(room_id: str) -> None:
        await log.send([Draft(room_id, user_id, "m.room.member", {"membership": "leave"}, state_key=user_id)])

    await in_every_room(await rooms_of_user(pool, user_id, "jik"), leave)
