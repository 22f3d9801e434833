"""Changing the password: with the old one, or by a message to the account's e-mail address.

Invariant: a validated address changes the password of the account that has it, once. Source: client-server API, "Password
management".
"""

from __future__ import annotations

from typing import ClassVar

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.sessions import Session, SessionCache
from matrix.errors import missing_token
from writer.accounts import replace_password
from writer.authentication import PASSWORD, PasswordAuthentication
from writer.interactive import Interactive, Stage
from writer.log_writer import LogWriter
from writer.passwords import Passwords, check_password
from writer.requests import boolean, read_body, required_text
from writer.validations import EMAIL_STAGE, Validations


class PasswordChange:
    """POST /account/password."""

    optional_methods: ClassVar = frozenset({"POST"})

    def __init__(
        self,
        pool: Pool,
        log: LogWriter,
        sessions: SessionCache,
        passwords: Passwords,
        interactive: Interactive,
        authentication: PasswordAuthentication,
        validations: Validations,
    ) -> None:
        self._pool = pool
        self._log = log
        self._sessions = sessions
        self._passwords = passwords
        self._interactive = interactive
        self._authentication = authentication
        self._validations = validations

    async def on_post(self, req: Request, resp: Response) -> None:
        """Changes the password; other devices are logged out unless the request says otherwise."""
        session: Session | None = req.context.session
        body = await read_body(req)
        flows: list[list[str]] = []
        stages: dict[str, Stage] = {}
        if session is not None:
            flows.append([PASSWORD])
            stages[PASSWORD] = self._authentication.stage(session)
        if self._validations.enabled:
            flows.append([EMAIL_STAGE])
            stages[EMAIL_STAGE] = self._validations.reset_stage(None if session is None else session.user_id)
        if not flows:
            raise missing_token()
        password = check_password(required_text(body, "new_password")) or ""
        logout_devices = boolean(body, "logout_devices", True)
        whose = "" if session is None else session.user_id
        session_id, left = await self._interactive.require(
            ["POST", "/account/password", whose], body.get("auth"), flows, stages
        )
        user_id: str = left["user_id"]
        hashed = await self._passwords.hash(password)
        async with self._pool.connection() as connection:
            gone = await replace_password(
                connection,
                user_id,
                hashed,
                logout_devices=logout_devices,
                kept_device=None if session is None else session.device_id,
            )
        self._sessions.forget(user_id)
        await self._log.settled(gone)
        if "sid" in left:
            await self._validations.end(left["sid"])
        await self._interactive.end(session_id)
        resp.media = {}
