"""Server notices: what the server's administrators have to say to a user, in a room that the user cannot decline.

Invariant: a user has one such room; who left it is invited to it again. Its other member is a user of the server's own, as whom
nobody can log in. Paths and bodies are those of Synapse's admin API, for the tools that speak it. Source: client-server API,
"Server Notices".
"""

from __future__ import annotations

from typing import Any, Final

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import Session
from eventlog.settings import Settings
from matrix.errors import MatrixError, forbidden, missing_param, not_found
from matrix.identifiers import new_room_id
from writer.account_data import TAGS, AccountData
from writer.accounts import find_account, insert_account
from writer.claims import Claims
from writer.drafts import Draft
from writer.log_writer import LogWriter
from writer.profiles import Profiles
from writer.rate_limits import RateLimits
from writer.redacting import check_txn_id
from writer.requests import json_object, read_body, required_user_id, session_of, text
from writer.room_plan import plan_room
from writer.sending import check_type

SQL = Queries("writer", "server_notices.sql")

TAG: Final = "m.server_notice"
NAME: Final = "Server notices"
# Who is told notices cannot talk back.
READER_LEVEL: Final = -10


def notices_id(settings: Settings) -> str:
    """The user id of the server's own user."""
    return f"@{settings.server.notices_localpart}:{settings.server.name}"


class ServerNotices:
    """POST /_synapse/admin/v1/send_server_notice and PUT /_synapse/admin/v1/send_server_notice/{txn_id}."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        log: LogWriter,
        claims: Claims,
        data: AccountData,
        profiles: Profiles,
        limits: RateLimits,
    ) -> None:
        self._notices_id = notices_id(settings)
        self._server_name = settings.server.name
        self._default_version = settings.server.default_room_version
        self._pool = pool
        self._log = log
        self._claims = claims
        self._data = data
        self._profiles = profiles
        self._limits = limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """Sends a notice."""
        resp.media = await self._send(req, None)

    async def on_put_once(self, req: Request, resp: Response, txn_id: str) -> None:
        """Sends a notice once, however often it is asked for."""
        resp.media = await self._send(req, check_txn_id(txn_id))

    async def _send(self, req: Request, txn_id: str | None) -> dict[str, str]:
        session = session_of(req)
        _check_admin(session)
        body = await read_body(req)
        user_id, content = required_user_id(body), json_object(body, "content")
        if content is None:
            raise missing_param("content is missing.")
        kind, state_key = check_type(text(body, "type") or "m.room.message"), text(body, "state_key")
        self._limits.take("message", session.user_id)
        await self._check_recipient(user_id)
        async with self._claims.hold("server notices", user_id):
            room_id = await self._room(user_id)
        draft = Draft(
            room_id,
            self._notices_id,
            kind,
            content,
            state_key=state_key,
            device_id=f"{session.user_id} {session.device_id}",
            txn_id=txn_id,
            txn_path="send_server_notice",
        )
        return {"event_id": (await self._log.send([draft]))[0].event_id}

    async def _check_recipient(self, user_id: str) -> None:
        async with self._pool.connection() as connection:
            account = await find_account(connection, user_id)
            if account is None or account.deactivated_at is not None:
                raise not_found("There is no such user here.")
            own = await find_account(connection, self._notices_id)
            if own is None:
                await insert_account(connection, self._notices_id, None)
            elif own.password_hash is not None:
                message = f"{self._notices_id} is somebody's account: set server.notices_localpart to a free name."
                raise MatrixError(400, "M_USER_IN_USE", message)

    async def _room(self, user_id: str) -> str:
        """The user's room for notices, with the user in it or invited."""
        async with self._pool.connection() as connection:
            found = {"notices_id": self._notices_id, "user_id": user_id}
            row = await (await connection.execute(SQL["notices_room"], found)).fetchone()
        if row is None:
            return await self._make(user_id)
        room_id, membership = row
        if membership not in ("j", "i"):
            content = await self._profiles.member(user_id, "invite")
            await self._log.send([Draft(room_id, self._notices_id, "m.room.member", content, state_key=user_id)])
        return str(room_id)

    async def _make(self, user_id: str) -> str:
        options: dict[str, Any] = {
            "preset": "private_chat",
            "name": NAME,
            "invite": [user_id],
            "power_level_content_override": {"users_default": READER_LEVEL, "invite": 50},
        }
        plan = plan_room(options, self._notices_id, self._default_version)
        members = {**await self._profiles.names([user_id]), self._notices_id: {"displayname": NAME}}
        room_id = await self._log.create_room(
            plan.version,
            plan.create(new_room_id(self._server_name)),
            lambda made: plan.rest(made, None, members),
        )
        # "…must identify this room to clients with the m.server_notice tag."
        await self._data.put(user_id, room_id, TAGS, {"tags": {TAG: {}}})
        return room_id


def _check_admin(session: Session) -> None:
    if not session.admin:
        raise forbidden("You are not a server administrator.")
