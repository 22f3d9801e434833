"""Authentication with the password once more, for what a stolen access token should not be enough for.

Source: client-server API, "User-Interactive Authentication API", "Password-based".
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request

from eventlog.sessions import Session
from matrix.errors import forbidden
from writer.interactive import Interactive, Stage
from writer.password_check import PasswordCheck, identifier_of
from writer.requests import Body, required_text, session_of

PASSWORD = "m.login.password"


class PasswordAuthentication:
    """Lets a request through once the requester has given their password again."""

    def __init__(self, interactive: Interactive, check: PasswordCheck) -> None:
        self._interactive = interactive
        self._check = check

    async def require(self, req: Request, body: Body, path: str) -> str:
        """The id of the authentication session, to be ended when the request has been carried out."""
        session = session_of(req)
        stages: dict[str, Stage] = {PASSWORD: self._opened}
        session_id, left = await self._interactive.require(
            [req.method, path, session.user_id], body.get("auth"), [[PASSWORD]], stages
        )
        if left["user_id"] != session.user_id:
            # Authenticated, but as somebody who may not do this.
            raise forbidden("That is another user's password.")
        return session_id

    async def end(self, session_id: str) -> None:
        """Ends the authentication session."""
        await self._interactive.end(session_id)

    def stage(self, session: Session) -> Stage:
        """The stage that a session's user completes with their password."""

        async def check(auth: dict[str, Any]) -> dict[str, Any]:
            left = await self._opened(auth)
            if left["user_id"] != session.user_id:
                raise forbidden("That is another user's password.")
            return left

        return check

    async def _opened(self, auth: dict[str, Any]) -> dict[str, Any]:
        account = await self._check.account(identifier_of(auth), required_text(auth, "password"))
        return {"user_id": account.user_id}
