"""Profiles: fields set, removed and read; names and avatars carried into the rooms.

Invariant: the profile is the record; the member events of the rooms follow it within the same request. A profile is set under a
claim, so that fields set at once do not make it larger than it may be.
Source: client-server API, "Profiles".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.sessions import Session
from matrix.errors import MatrixError, bad_json, guest_forbidden, invalid_param, missing_param, not_found
from matrix.identifiers import fits, is_user_id
from writer.claims import Claims
from writer.drafts import Draft
from writer.log_writer import LogWriter
from writer.permissions import membership_of
from writer.rate_limits import RateLimits
from writer.requests import check_own, read_body, session_of
from writer.rooms_of_user import in_every_room, rooms_of_user

SQL = Queries("writer", "profiles.sql")

# "the total profile MUST be under 64 KiB"
MOST_BYTES = 65_536
MOST_NAME_CHARACTERS = 256
MOST_URL_CHARACTERS = 1000
# Changes that one request follows.
MOST_ROUNDS = 5
IN_MEMBER_EVENTS = ("displayname", "avatar_url")

_FIELD = re.compile(r"avatar_url|displayname|m\.tz|[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_-]*)+")


class Profiles:
    """The profile fields of local users as the room server wrote them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fields(self, user_id: str) -> dict[str, Any]:
        """All fields of a user."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["fields"], {"user_id": user_id})
            return {unsafe(field): orjson.loads(value) for field, value in await cursor.fetchall()}

    async def field(self, user_id: str, field: str) -> Any:
        """One field; None when it is not set."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["field"], {"user_id": user_id, "field": safe(field)})
            row = await cursor.fetchone()
        return None if row is None else orjson.loads(row[0])

    async def exists(self, user_id: str) -> bool:
        """Whether there is such a user here."""
        async with self._pool.connection() as connection:
            return await (await connection.execute(SQL["exists"], {"user_id": user_id})).fetchone() is not None

    async def names(self, user_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """By user id, what a member event says of the user: displayname and avatar_url, as far as they are set."""
        found: dict[str, dict[str, str]] = {user_id: {} for user_id in user_ids}
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["names"], {"user_ids": list(found)})
            for user_id, field, value in await cursor.fetchall():
                parsed = orjson.loads(value)
                if isinstance(parsed, str):
                    found[user_id][field] = parsed
        return found

    async def member(self, user_id: str, membership: str, reason: str | None = None) -> dict[str, Any]:
        """The content of a member event of the user."""
        content: dict[str, Any] = {"membership": membership, **(await self.names([user_id]))[user_id]}
        if reason is not None:
            content["reason"] = reason
        return content


class ProfileResource:
    """/profile/{user_id} and /profile/{user_id}/{field}."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, pool: Pool, log: LogWriter, profiles: Profiles, claims: Claims, limits: RateLimits) -> None:
        self._pool = pool
        self._log = log
        self._profiles = profiles
        self._claims = claims
        self._limits = limits

    async def on_get_all(self, req: Request, resp: Response, user_id: str) -> None:
        """The whole profile of a user of this server."""
        await self._check_exists(user_id)
        resp.media = await self._profiles.fields(user_id)

    async def on_get(self, req: Request, resp: Response, user_id: str, field: str) -> None:
        """One field of the profile of a user of this server."""
        await self._check_exists(user_id)
        value = await self._profiles.field(user_id, field)
        if value is None:
            raise not_found("The profile has no such field.")
        resp.media = {field: value}

    async def on_put(self, req: Request, resp: Response, user_id: str, field: str) -> None:
        """Sets a field of the requester's profile."""
        session, body = session_of(req), await read_body(req)
        check_own(session, user_id)
        _check_field(field, session)
        self._limits.take("message", user_id)
        if field not in body:
            raise missing_param(f"{field} is missing.")
        value = _check_value(field, body[field])
        async with self._claims.hold("profile", user_id):
            fields = {**await self._profiles.fields(user_id), field: value}
            if len(orjson.dumps(fields)) > MOST_BYTES:
                raise MatrixError(400, "M_PROFILE_TOO_LARGE", "A profile may have 64 KiB.")
            await self._set(user_id, field, value)
        if field in IN_MEMBER_EVENTS:
            await self._propagate(user_id)
        resp.media = {}

    async def on_delete(self, req: Request, resp: Response, user_id: str, field: str) -> None:
        """Removes a field of the requester's profile."""
        session = session_of(req)
        check_own(session, user_id)
        _check_field(field, session)
        self._limits.take("message", user_id)
        await self._set(user_id, field, None)
        if field in IN_MEMBER_EVENTS:
            await self._propagate(user_id)
        resp.media = {}

    async def _set(self, user_id: str, field: str, value: Any) -> None:
        await self._log.append_entry(type="profile", user_id=user_id, content={"field": field, "value": value})

    async def _propagate(self, user_id: str) -> None:
        """Says the new name in every room the user is joined to.

        Again if it has been changed meanwhile: whoever ends last has looked at the profile after the last word in any room.
        """
        content: dict[str, Any] = {}
        for _ in range(MOST_ROUNDS):
            named = await self._profiles.member(user_id, "join")
            if named == content:
                return
            content = named
            await self._say(user_id, content)

    async def _say(self, user_id: str, content: dict[str, Any]) -> None:
        key = ("m.room.member", user_id)

        async def change(room_id: str) -> None:
            current = (await self._log.view(room_id, [key])).state.get(key)
            if membership_of(current) != "join" or current is None:
                return
            if any(current.content.get(name) != content.get(name) for name in IN_MEMBER_EVENTS):
                await self._log.send([Draft(room_id, user_id, "m.room.member", dict(content), state_key=user_id)])

        await in_every_room(await rooms_of_user(self._pool, user_id, "j"), change)

    async def _check_exists(self, user_id: str) -> None:
        if not is_user_id(user_id):
            raise invalid_param("Not a user ID.")
        if not await self._profiles.exists(user_id):
            raise not_found("There is no such user here.")


def _check_field(field: str, session: Session) -> None:
    if session.guest and field != "displayname":
        # "Guest users may only modify their display name; other profile fields may not be changed."
        raise guest_forbidden()
    if not fits(field):
        raise MatrixError(400, "M_KEY_TOO_LARGE", "The name of a profile field may have 255 bytes.")
    if not _FIELD.fullmatch(field):
        raise invalid_param("Invalid profile field.")


def _check_value(field: str, value: Any) -> Any:
    """The value to store; None removes a name or an avatar, as an empty string does."""
    if field == "m.tz" and not isinstance(value, str):
        raise bad_json("m.tz must be a string.")
    if field not in IN_MEMBER_EVENTS:
        # Entries of null remove a field, and servers may refuse null.
        if value is None:
            raise invalid_param("A profile field cannot be null. Delete it instead.")
        return value
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise bad_json(f"{field} must be a string.")
    if field == "displayname" and len(value) > MOST_NAME_CHARACTERS:
        raise invalid_param(f"A display name may have {MOST_NAME_CHARACTERS} characters.")
    if field == "avatar_url" and (len(value) > MOST_URL_CHARACTERS or not value.startswith("mxc://")):
        raise invalid_param("avatar_url must be an mxc:// URI.")
    return value
