"""POST /rooms/{room_id}/upgrade: a room is replaced by one of another version.

Invariant: the old room is told of its successor only once that is complete. Who asks while a room is being upgraded gets the room
that is being made. Source: client-server API, "Room upgrades".
"""

from __future__ import annotations

import orjson
import structlog
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from matrix.errors import MatrixError, forbidden, invalid_param, unsupported_room_version
from matrix.identifiers import is_room_id, is_user_id, new_room_id
from matrix.redaction import redact_content
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from writer.carried_settings import CarriedSettings
from writer.claims import Claims
from writer.drafts import Draft
from writer.log_writer import LogWriter
from writer.permissions import CREATE, POWER_KEYS, may_set_state, membership_of
from writer.profiles import Profiles
from writer.rate_limits import RateLimits
from writer.requests import check_room_id, read_body, required_text, session_of, texts
from writer.rooms_of_user import in_every_room
from writer.succession import CANONICAL_ALIAS, CARRIED, LEVELS, Succession, restricted_levels, without_aliases
from writer.views import RoomView, StateKey

log = structlog.get_logger(__name__)
SQL = Queries("writer", "upgrade.sql")

TOMBSTONE: StateKey = ("m.room.tombstone", "")
MOST_CREATORS = 100
MOST_BANS = 10_000
MOST_CHILDREN = 5_000
MOST_ALIASES = 10_000
# Events of the new room that are appended together.
TOGETHER = 100


class Upgrade:
    """POST /rooms/{room_id}/upgrade."""

    def __init__(
        self,
        pool: Pool,
        log: LogWriter,
        claims: Claims,
        profiles: Profiles,
        settings: CarriedSettings,
        limits: RateLimits,
        server_name: str,
    ) -> None:
        self._pool = pool
        self._log = log
        self._claims = claims
        self._profiles = profiles
        self._settings = settings
        self._limits = limits
        self._server_name = server_name

    async def on_post(self, req: Request, resp: Response, room_id: str) -> None:
        """Replaces the room; M_FORBIDDEN unless the requester may say in it that it is replaced."""
        session, body = session_of(req), await read_body(req)
        version = ROOM_VERSIONS.get(name := required_text(body, "new_version"))
        if version is None:
            raise unsupported_room_version(name)
        additional: list[str] = []
        if version.privileged_creators:
            additional = texts(body, "additional_creators", MOST_CREATORS)
            if not all(is_user_id(user_id) for user_id in additional):
                raise invalid_param("additional_creators must be a list of user IDs.")
        check_room_id(room_id)
        self._limits.take("room", session.user_id)
        before = await self._view(room_id, session.user_id)
        async with self._claims.hold("upgrade", room_id):
            view = await self._view(room_id, session.user_id)
            replacement = _replacement(view)
            if replacement is None or replacement == _replacement(before):
                replacement = await self._replace(view, session.user_id, version, additional)
        resp.media = {"replacement_room": replacement}

    async def _view(self, room_id: str, user_id: str) -> RoomView:
        view = await self._log.view(room_id, [*POWER_KEYS, TOMBSTONE, ("m.room.member", user_id)])
        joined = membership_of(view.state.get(("m.room.member", user_id))) == "join"
        if not joined or not may_set_state(view, user_id, TOMBSTONE[0]):
            raise forbidden("You cannot upgrade this room.")
        return view

    async def _replace(self, view: RoomView, user_id: str, version: RoomVersion, additional: list[str]) -> str:
        old_room = view.room_id
        succession = await self._succession(view)
        names = (await self._profiles.names([user_id]))[user_id]
        content = succession.create_content(version, user_id, additional)
        create = Draft(new_room_id(self._server_name), user_id, "m.room.create", content, state_key="")
        later: list[Draft] = []

        def rest(room_id: str) -> list[Draft]:
            drafts = succession.drafts(room_id, version, user_id, additional, names)
            later[:] = drafts[TOGETHER:]
            return drafts[:TOGETHER]

        new_room = await self._log.create_room(version, create, rest)
        for begin in range(0, len(later), TOGETHER):
            await self._log.send(later[begin : begin + TOGETHER])
        tombstone = {"body": "This room has been replaced", "replacement_room": new_room}
        await self._log.send([Draft(old_room, user_id, TOMBSTONE[0], tombstone, state_key="")])
        await self._move_addresses(succession, user_id, old_room, new_room)
        await self._close(succession, user_id, old_room)
        await self._settings.carry(user_id, old_room, new_room)
        return new_room

    async def _succession(self, view: RoomView) -> Succession:
        create = view.state[CREATE]
        assert create is not None
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["carried_state"],
                {
                    "room_id": view.room_id,
                    "types": list(CARRIED),
                    "most_children": MOST_CHILDREN,
                    "most_bans": MOST_BANS,
                },
            )
            rows = await cursor.fetchall()
        state: dict[StateKey, dict[str, object]] = {}
        for kind, state_key, pdu, redacted in rows:
            content = orjson.loads(pdu)["content"]
            if redacted:
                content = redact_content(kind, content, view.room_version)
            # What is empty was taken away: a child that is none any more, a name that was redacted.
            if content:
                state[kind, unsafe(state_key)] = content
        return Succession(create, state, view.previous[0])

    async def _move_addresses(self, succession: Succession, user_id: str, old_room: str, new_room: str) -> None:
        """Moves local aliases and the entry in the directory."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["aliases"], {"room_id": old_room, "most": MOST_ALIASES})
            makers: dict[str, str] = dict(await cursor.fetchall())
            row = await (await connection.execute(SQL["published"], {"room_id": old_room})).fetchone()

        async def move(alias: str) -> None:
            # In the name of who made it, and so may remove it.
            content = {"alias": alias, "room_id": new_room, "from": old_room}
            await self._log.append_entry(type="alias", user_id=makers[alias], content=content)

        await in_every_room(makers, move)
        former = without_aliases(succession.state.get(CANONICAL_ALIAS, {}), makers)
        if former is not None:
            await self._try(Draft(old_room, user_id, CANONICAL_ALIAS[0], former, state_key=""))
        if row is not None and row[0]:
            for room_id, published in ((new_room, True), (old_room, False)):
                await self._log.append_entry(
                    type="directory",
                    user_id=user_id,
                    content={"room_id": room_id, "published": published},
                    room_id=room_id,
                )

    async def _close(self, succession: Succession, user_id: str, old_room: str) -> None:
        """ "If possible, the power levels in the old room should also be modified"."""
        levels = restricted_levels(succession.state.get(LEVELS, {}), succession.create.room_version)
        if levels is not None and LEVELS in succession.state:
            await self._try(Draft(old_room, user_id, LEVELS[0], levels, state_key=""))

    async def _try(self, draft: Draft) -> None:
        try:
            await self._log.send([draft])
        except MatrixError as error:
            if error.status != 403:
                raise
            log.info(
                "a room that was replaced stays as it is", room_id=draft.room_id, type=draft.type, error=str(error)
            )


def _replacement(view: RoomView) -> str | None:
    tombstone = view.state.get(TOMBSTONE)
    replacement = None if tombstone is None else tombstone.content.get("replacement_room")
    return replacement if is_room_id(replacement) else None
