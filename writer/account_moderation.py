"""What server administrators may do with accounts: look who uses them, suspend and lock them.

Invariant: whether the requester may is asked before whether the account is there, so that nobody else learns which there are;
an administrator moderates neither themselves nor another one. Source: client-server API, "Account moderation", "Server
Administration".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from eventlog.sessions import Session, SessionCache
from matrix.errors import bad_json, forbidden, invalid_param, missing_param, not_found
from matrix.identifiers import is_user_id, server_name_of
from writer.accounts import Account, find_account, set_locked, set_suspended
from writer.requests import read_body, session_of

SQL = Queries("writer", "devices.sql")


class AccountModeration:
    """/admin/suspend/{user_id}, /admin/lock/{user_id}, /admin/whois/{user_id}."""

    def __init__(self, pool: Pool, sessions: SessionCache, server_name: str) -> None:
        self._pool = pool
        self._sessions = sessions
        self._server_name = server_name

    async def on_get_suspend(self, req: Request, resp: Response, user_id: str) -> None:
        """Whether an account is suspended."""
        resp.media = {"suspended": (await self._account(session_of(req), user_id)).suspended}

    async def on_put_suspend(self, req: Request, resp: Response, user_id: str) -> None:
        """Suspends an account, or no longer."""
        resp.media = {"suspended": await self._set(req, user_id, "suspended", set_suspended)}

    async def on_get_lock(self, req: Request, resp: Response, user_id: str) -> None:
        """Whether an account is locked."""
        resp.media = {"locked": (await self._account(session_of(req), user_id)).locked}

    async def on_put_lock(self, req: Request, resp: Response, user_id: str) -> None:
        """Locks an account, or unlocks it."""
        resp.media = {"locked": await self._set(req, user_id, "locked", set_locked)}

    async def on_get_whois(self, req: Request, resp: Response, user_id: str) -> None:
        """From where the sessions of an account were last used: of the requester's own, or of any for administrators."""
        session = session_of(req)
        if session.user_id != user_id and not session.admin:
            raise forbidden("You are not a server administrator.")
        self._check_local(user_id)
        async with self._pool.connection() as connection:
            if await find_account(connection, user_id) is None:
                raise not_found("There is no such user here.")
            cursor = await connection.execute(SQL["connections"], {"user_id": user_id})
            devices = {unsafe(row[0]): {"sessions": [{"connections": _connections(*row[1:])}]} async for row in cursor}
        resp.media = {"user_id": user_id, "devices": devices}

    async def _set(
        self,
        req: Request,
        user_id: str,
        member: str,
        change: Callable[[AsyncConnection, str, bool], Awaitable[None]],
    ) -> bool:
        session, body = session_of(req), await read_body(req)
        wanted = body.get(member)
        if wanted is None:
            raise missing_param(f"{member} is missing.")
        if not isinstance(wanted, bool):
            raise bad_json(f"{member} must be a boolean.")
        if session.admin and session.user_id == user_id:
            raise forbidden("You cannot do this to your own account.")
        await self._account(session, user_id)
        async with self._pool.connection() as connection:
            await change(connection, user_id, wanted)
        self._sessions.forget(user_id)
        return wanted

    async def _account(self, session: Session, user_id: str) -> Account:
        """The active account of somebody who is no administrator, for one who is."""
        if not session.admin:
            raise forbidden("You are not a server administrator.")
        self._check_local(user_id)
        async with self._pool.connection() as connection:
            account = await find_account(connection, user_id)
        if account is None or account.deactivated_at is not None:
            raise not_found("There is no such user here.")
        if account.admin and account.user_id != session.user_id:
            raise forbidden("The user is a server administrator.")
        return account

    def _check_local(self, user_id: str) -> None:
        if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise invalid_param("The user does not belong to this server.")


def _connections(address: str | None, seen_at: int | None, user_agent: str | None) -> list[dict[str, Any]]:
    if seen_at is None:
        return []
    said = {"ip": address, "last_seen": seen_at, "user_agent": None if user_agent is None else unsafe(user_agent)}
    return [{name: value for name, value in said.items() if value is not None}]
