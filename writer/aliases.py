"""Room aliases of this server: made, looked up, removed, listed.

Invariant: an alias points to one room; it is looked up and made under a claim on it, so that of two who make it one is refused.
Source: client-server API, "Room aliases".
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import ClassVar, Final

from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.sessions import Session
from matrix.errors import MatrixError, forbidden, invalid_param, not_found, room_in_use, too_large
from matrix.identifiers import is_room_alias, server_name_of
from matrix.visibility import history_visibility_of
from writer.claims import Claims
from writer.drafts import Draft
from writer.log_writer import LogWriter
from writer.permissions import POWER_KEYS, may_set_state, membership_of
from writer.rate_limits import RateLimits
from writer.requests import check_room_id, read_body, required_text, session_of
from writer.succession import CANONICAL_ALIAS, without_aliases

SQL = Queries("writer", "aliases.sql")
MOST_ALIASES: Final = 1_000
"""Aliases that may point to a room when another is made."""
VISIBILITY = ("m.room.history_visibility", "")


class Aliases:
    """The aliases as the room server wrote them, and how one is made."""

    def __init__(self, pool: Pool, log: LogWriter, claims: Claims, server_name: str) -> None:
        self._pool = pool
        self._log = log
        self._claims = claims
        self.server_name = server_name

    async def find(self, alias: str) -> tuple[str, str] | None:
        """Room id and creator of an alias; None for one that is not there, or of another server."""
        if not is_room_alias(alias) or server_name_of(alias) != self.server_name:
            return None
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["room_of_alias"], {"alias": alias})).fetchone()
        return None if row is None else (row[0], row[1])

    async def room_of(self, alias: str) -> str | None:
        """The room an alias points to."""
        found = await self.find(alias)
        return None if found is None else found[0]

    async def resolve(self, room_id_or_alias: str) -> str:
        """The room id of what a path names: M_NOT_FOUND for an alias nobody made, M_INVALID_PARAM for neither."""
        if not room_id_or_alias.startswith("#"):
            return check_room_id(room_id_or_alias)
        room_id = await self.room_of(self.check(room_id_or_alias))
        if room_id is None:
            raise not_found("There is no such room alias here.")
        return room_id

    def check(self, alias: str) -> str:
        """The alias; M_INVALID_PARAM if it is none."""
        if not is_room_alias(alias):
            raise invalid_param("Not a room alias.")
        return alias

    async def of_room(self, room_id: str) -> list[str]:
        """All aliases that point to a room."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["aliases_of_room"], {"room_id": room_id})
            return [row[0] for row in await cursor.fetchall()]

    async def check_room_for_more(self, room_id: str) -> None:
        """M_TOO_LARGE if as many aliases as there may be point to a room."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["number_of_aliases"], {"room_id": room_id, "most": MOST_ALIASES})
            row = await cursor.fetchone()
        if row is not None and row[0] >= MOST_ALIASES:
            raise too_large(f"A room may have {MOST_ALIASES} aliases.")

    @contextlib.asynccontextmanager
    async def hold(self, alias: str) -> AsyncIterator[None]:
        """Holds a free alias, to be given to a room within the block. M_ROOM_IN_USE if it is taken."""
        async with self._claims.hold("alias", alias) as connection:
            if await _is_taken(connection, alias):
                raise room_in_use("The room alias is taken.")
            yield

    async def put(self, user_id: str, alias: str, room_id: str | None) -> None:
        """Points an alias to a room, or removes it; the caller holds it, or may remove it."""
        await self._log.append_entry(type="alias", user_id=user_id, content={"alias": alias, "room_id": room_id})


async def _is_taken(connection: AsyncConnection, alias: str) -> bool:
    return await (await connection.execute(SQL["room_of_alias"], {"alias": alias})).fetchone() is not None


class AliasResource:
    """/directory/room/{room_alias}."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, aliases: Aliases, log: LogWriter, limits: RateLimits) -> None:
        self._aliases = aliases
        self._log = log
        self._limits = limits

    async def on_get(self, req: Request, resp: Response, room_alias: str) -> None:
        """The room an alias points to, and servers that know it."""
        room_id = await self._aliases.room_of(self._aliases.check(room_alias))
        if room_id is None:
            raise not_found("There is no such room alias here.")
        resp.media = {"room_id": room_id, "servers": [self._aliases.server_name]}

    async def on_put(self, req: Request, resp: Response, room_alias: str) -> None:
        """Makes an alias for a room the requester is in."""
        session, body = session_of(req), await read_body(req)
        room_id = check_room_id(required_text(body, "room_id"))
        self._limits.take("message", session.user_id)
        self._aliases.check(room_alias)
        if server_name_of(room_alias) != self._aliases.server_name:
            raise invalid_param("An alias is made on the server it names.")
        view = await self._log.view(room_id, [("m.room.member", session.user_id)])
        if membership_of(view.state.get(("m.room.member", session.user_id))) != "join":
            raise forbidden("You are not in that room.")
        await self._aliases.check_room_for_more(room_id)
        try:
            async with self._aliases.hold(room_alias):
                await self._aliases.put(session.user_id, room_alias, room_id)
        except MatrixError as error:
            if error.errcode == "M_ROOM_IN_USE":
                # This endpoint has a status of its own for it.
                raise MatrixError(409, "M_UNKNOWN", f"Room alias {room_alias} already exists.") from error
            raise
        resp.media = {}

    async def on_delete(self, req: Request, resp: Response, room_alias: str) -> None:
        """Removes an alias: its maker may, an administrator, and who may name the room's canonical alias."""
        session = session_of(req)
        found = await self._aliases.find(self._aliases.check(room_alias))
        if found is None:
            raise not_found("There is no such room alias here.")
        room_id, creator = found
        if creator != session.user_id and not session.admin and not await self._may_name(session, room_id):
            raise forbidden("You may not remove this alias.")
        await self._aliases.put(session.user_id, room_alias, None)
        await self._take_down(session, room_id, room_alias)
        resp.media = {}

    async def _take_down(self, session: Session, room_id: str, alias: str) -> None:
        """Takes a removed alias out of the room's canonical alias, if the user may change that."""
        view = await self._log.view(room_id, [*POWER_KEYS, CANONICAL_ALIAS, ("m.room.member", session.user_id)])
        standing = view.state.get(CANONICAL_ALIAS)
        content = None if standing is None else without_aliases(standing.content, [alias])
        joined = membership_of(view.state.get(("m.room.member", session.user_id))) == "join"
        if content is not None and joined and may_set_state(view, session.user_id, CANONICAL_ALIAS[0]):
            await self._log.send([Draft(room_id, session.user_id, CANONICAL_ALIAS[0], content, state_key="")])

    async def _may_name(self, session: Session, room_id: str) -> bool:
        view = await self._log.view(room_id, [*POWER_KEYS, ("m.room.member", session.user_id)])
        joined = membership_of(view.state.get(("m.room.member", session.user_id))) == "join"
        return joined and may_set_state(view, session.user_id, "m.room.canonical_alias")


class RoomAliases:
    """/rooms/{room_id}/aliases."""

    def __init__(self, aliases: Aliases, log: LogWriter) -> None:
        self._aliases = aliases
        self._log = log

    async def on_get(self, req: Request, resp: Response, room_id: str) -> None:
        """The aliases of a room, for its members, and for everybody when its history is world-readable."""
        session = session_of(req)
        check_room_id(room_id)
        try:
            view = await self._log.view(room_id, [VISIBILITY, ("m.room.member", session.user_id)])
        except MatrixError:
            raise forbidden("You are not in this room.") from None
        joined = membership_of(view.state.get(("m.room.member", session.user_id))) == "join"
        if not joined and history_visibility_of(view.state.get(VISIBILITY)) != "world_readable":
            raise forbidden("You are not in this room.")
        resp.media = {"aliases": await self._aliases.of_room(room_id)}
