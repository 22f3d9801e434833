"""Key backups: encrypted copies of the keys of encrypted rooms, for a user's other devices.

Invariant: keys are added to the newest backup alone, one request of a user after the other, and of two keys for one session
the better one stays. Secrets, and so not in the log. A version is never given twice, not even after a restore: what a client
believes of a version that was lost is not taken for what came later. Source: client-server API, "Server-side key backups".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.errors import MatrixError, bad_json, invalid_param, missing_param, not_found, too_large
from matrix.identifiers import fits, is_room_id
from writer.requests import Body, check_room_id, json_object, read_body, required_text, session_of, text

SQL = Queries("writer", "key_backups.sql")

MOST_BACKUPS: Final = 100
"""Backups of one user that are not deleted."""
KEPT: Final = 100
"""Deleted backups that are known to have been there."""
MOST_KEYS: Final = 200_000
"""Keys in one backup."""
MOST_AUTH_DATA_BYTES: Final = 65_536
MOST_SESSION_DATA_BYTES: Final = 16_384
PAGE: Final = 500
"""Keys read at a time for an answer that has them all."""
_VERSION: Final = re.compile(r"([0-9]{1,18})-([0-9a-f]{8})")
_LARGEST: Final = 2**53 - 1

Key = tuple[str, str, bool, int, int, str]
"""Room, session, verified, first message, times forwarded, encrypted key as JSON; texts as they are, not NUL-safe."""


class Backup(NamedTuple):
    """A row of writer.key_backups."""

    id: int
    nonce: str
    algorithm: str
    auth_data: str
    keys: int
    etag: str
    deleted: bool

    @property
    def version(self) -> str:
        """What clients call it."""
        return f"{self.id}-{self.nonce}"


class KeyBackupVersions:
    """/room_keys/version and /room_keys/version/{version}."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_post(self, req: Request, resp: Response) -> None:
        """Makes a backup."""
        user_id, body = session_of(req).user_id, await read_body(req)
        algorithm, auth_data = _algorithm(body), _auth_data(body)
        values = {"user_id": user_id, "algorithm": safe(algorithm), "auth_data": safe(auth_data), "most": MOST_BACKUPS}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["make"], values)).fetchone()
        if row is None:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A user may have {MOST_BACKUPS} backups: delete one.")
        resp.media = {"version": f"{row[0]}-{row[1]}"}

    async def on_get(self, req: Request, resp: Response) -> None:
        """The newest backup."""
        async with self._pool.connection() as connection:
            found = await _newest(connection, session_of(req).user_id)
        if found is None:
            raise not_found("No current backup version.")
        resp.media = _description(found)

    async def on_get_one(self, req: Request, resp: Response, version: str) -> None:
        """One backup."""
        async with self._pool.connection() as connection:
            resp.media = _description(await _standing(connection, "backup", session_of(req).user_id, version))

    async def on_put_one(self, req: Request, resp: Response, version: str) -> None:
        """Replaces what a backup says of itself."""
        user_id, body = session_of(req).user_id, await read_body(req)
        algorithm, auth_data = _algorithm(body), _auth_data(body)
        if (text(body, "version") or version) != version:
            raise invalid_param("The version of the body is not the version of the path.")
        async with self._pool.connection() as connection, connection.transaction():
            found = await _standing(connection, "lock", user_id, version)
            if unsafe(found.algorithm) != algorithm:
                raise invalid_param("The algorithm of a backup cannot change.")
            await connection.execute(SQL["update"], {"id": found.id, "auth_data": safe(auth_data)})
        resp.media = {}

    async def on_delete_one(self, req: Request, resp: Response, version: str) -> None:
        """Deletes a backup; one that was deleted before is no error."""
        user_id = session_of(req).user_id
        async with self._pool.connection() as connection, connection.transaction():
            found = await _backup(connection, "lock", user_id, version)
            if found is None:
                raise not_found("There is no such backup.")
            if not found.deleted:
                await connection.execute(SQL["drop"], {"id": found.id})
                await connection.execute(SQL["forget"], {"user_id": user_id, "kept": KEPT})
        resp.media = {}


class BackedUpKeys:
    """/room_keys/keys, of a room, of a session."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def on_put(self, req: Request, resp: Response) -> None:
        """Adds keys of several rooms."""
        rooms = _required(await read_body(req), "rooms")
        keys: list[Key] = []
        for room_id, room in rooms.items():
            keys += _keys_of_room(room_id, room)
        await self._put(req, resp, keys)

    async def on_put_room(self, req: Request, resp: Response, room_id: str) -> None:
        """Adds keys of one room."""
        await self._put(req, resp, _keys_of_room(room_id, await read_body(req)))

    async def on_put_session(self, req: Request, resp: Response, room_id: str, session_id: str) -> None:
        """Adds the key of one session."""
        await self._put(req, resp, [_key(room_id, session_id, await read_body(req))])

    async def on_get(self, req: Request, resp: Response) -> None:
        """All keys, sent as they are read."""
        backup = await self._readable(req)
        resp.content_type = "application/json"
        resp.stream = _all_rooms(self._pool, backup.id)

    async def on_get_room(self, req: Request, resp: Response, room_id: str) -> None:
        """The keys of one room."""
        backup = await self._readable(req)
        resp.content_type = "application/json"
        resp.stream = _one_room(self._pool, backup.id, safe(check_room_id(room_id)))

    async def on_get_session(self, req: Request, resp: Response, room_id: str, session_id: str) -> None:
        """The key of one session."""
        backup = await self._readable(req)
        place = {"id": backup.id, "room_id": safe(room_id), "session_id": safe(session_id)}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["key"], place)).fetchone()
        if row is None:
            raise not_found("There is no such key in the backup.")
        resp.data = _rendered(row)

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Removes all keys."""
        await self._remove(req, resp)

    async def on_delete_room(self, req: Request, resp: Response, room_id: str) -> None:
        """Removes the keys of one room."""
        await self._remove(req, resp, safe(check_room_id(room_id)))

    async def on_delete_session(self, req: Request, resp: Response, room_id: str, session_id: str) -> None:
        """Removes the key of one session."""
        await self._remove(req, resp, safe(check_room_id(room_id)), safe(session_id))

    async def _readable(self, req: Request) -> Backup:
        version = _asked(req)
        async with self._pool.connection() as connection:
            return await _standing(connection, "backup", session_of(req).user_id, version)

    async def _put(self, req: Request, resp: Response, keys: list[Key]) -> None:
        user_id, version = session_of(req).user_id, _asked(req)
        async with self._pool.connection() as connection, connection.transaction():
            backup = await _standing(connection, "lock", user_id, version)
            newest = await _newest(connection, user_id)
            # "Keys can only be written to the most recently created version of the backup."
            if newest is not None and newest.id != backup.id:
                current = {"current_version": newest.version}
                raise MatrixError(403, "M_WRONG_ROOM_KEYS_VERSION", "That is not the newest backup.", **current)
            count, etag = backup.keys, backup.etag
            if keys:
                columns = [list(column) for column in zip(*keys, strict=True)]
                rooms, sessions, verified, indexes, counts, data = columns
                put = {
                    "id": backup.id,
                    "room_ids": [safe(one) for one in rooms],
                    "session_ids": [safe(one) for one in sessions],
                    "verified": verified,
                    "indexes": indexes,
                    "counts": counts,
                    "data": [safe(one) for one in data],
                }
                row = await (await connection.execute(SQL["put"], put)).fetchone()
                assert row is not None
                count, etag = row
                if count > MOST_KEYS:
                    raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A backup may have {MOST_KEYS} keys.")
        resp.media = {"count": count, "etag": etag}

    async def _remove(
        self, req: Request, resp: Response, room_id: str | None = None, session_id: str | None = None
    ) -> None:
        user_id, version = session_of(req).user_id, _asked(req)
        async with self._pool.connection() as connection, connection.transaction():
            backup = await _standing(connection, "lock", user_id, version)
            place = {"id": backup.id, "room_id": room_id, "session_id": session_id}
            row = await (await connection.execute(SQL["remove"], place)).fetchone()
        assert row is not None
        resp.media = {"count": row[0], "etag": row[1]}


async def _backup(connection: AsyncConnection[Any], query: str, user_id: str, version: str) -> Backup | None:
    parts = _VERSION.fullmatch(version)
    if parts is None:
        return None
    key = {"user_id": user_id, "id": int(parts[1]), "nonce": parts[2]}
    row = await (await connection.execute(SQL[query], key)).fetchone()
    return None if row is None else Backup(*row)


async def _standing(connection: AsyncConnection[Any], query: str, user_id: str, version: str) -> Backup:
    backup = await _backup(connection, query, user_id, version)
    if backup is None or backup.deleted:
        raise not_found("There is no such backup.")
    return backup


async def _newest(connection: AsyncConnection[Any], user_id: str) -> Backup | None:
    row = await (await connection.execute(SQL["newest"], {"user_id": user_id})).fetchone()
    return None if row is None else Backup(*row)


async def _pages(pool: Pool, query: str, backup: int, room_id: str) -> AsyncIterator[list[tuple[Any, ...]]]:
    """No connection is held while a client takes what it was sent."""
    place = {"id": backup, "room_id": room_id, "session_id": "", "most": PAGE}
    while True:
        async with pool.connection() as connection:
            rows = await (await connection.execute(SQL[query], place)).fetchall()
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        place["room_id"], place["session_id"] = rows[-1][:2]


async def _all_rooms(pool: Pool, backup: int) -> AsyncIterator[bytes]:
    yield b'{"rooms":{'
    here: str | None = None
    async for rows in _pages(pool, "page", backup, ""):
        parts = []
        for row in rows:
            if row[0] == here:
                parts.append(b",")
            else:
                parts += [b"}}," if here is not None else b"", orjson.dumps(unsafe(row[0])), b':{"sessions":{']
                here = row[0]
            parts += [orjson.dumps(unsafe(row[1])), b":", _rendered(row)]
        yield b"".join(parts)
    yield b"}}" if here is None else b"}}}}"


async def _one_room(pool: Pool, backup: int, room_id: str) -> AsyncIterator[bytes]:
    yield b'{"sessions":{'
    first = True
    async for rows in _pages(pool, "page_of_room", backup, room_id):
        yield (b"" if first else b",") + b",".join(orjson.dumps(unsafe(row[1])) + b":" + _rendered(row) for row in rows)
        first = False
    yield b"}}"


def _rendered(row: tuple[Any, ...]) -> bytes:
    _, _, is_verified, first_message_index, forwarded_count, session_data = row
    key = {
        "first_message_index": first_message_index,
        "forwarded_count": forwarded_count,
        "is_verified": is_verified,
        "session_data": orjson.Fragment(unsafe(session_data)),
    }
    return orjson.dumps(key)


def _description(backup: Backup) -> dict[str, Any]:
    return {
        "algorithm": unsafe(backup.algorithm),
        "auth_data": orjson.Fragment(unsafe(backup.auth_data)),
        "count": backup.keys,
        "etag": backup.etag,
        "version": backup.version,
    }


def _asked(req: Request) -> str:
    version = req.get_param("version")
    if version is None:
        raise missing_param("The query parameter version is missing.")
    return version


def _algorithm(body: Body) -> str:
    algorithm = required_text(body, "algorithm")
    if not algorithm or not fits(algorithm):
        raise invalid_param("algorithm has 1 to 255 bytes.")
    return algorithm


def _auth_data(body: Body) -> str:
    return _text_of(body, "auth_data", MOST_AUTH_DATA_BYTES)


def _text_of(body: Body, name: str, most: int) -> str:
    rendered = orjson.dumps(_required(body, name))
    if len(rendered) > most:
        raise too_large(f"{name} may have {most} bytes.")
    return rendered.decode()


def _required(body: Body, name: str) -> Body:
    value = json_object(body, name)
    if value is None:
        raise missing_param(f"{name} is missing.")
    return value


def _keys_of_room(room_id: str, room: Any) -> list[Key]:
    if not isinstance(room, dict):
        raise bad_json("A room must be an object.")
    return [_key(room_id, session_id, key) for session_id, key in _required(room, "sessions").items()]


def _key(room_id: str, session_id: str, key: Any) -> Key:
    if not isinstance(key, dict):
        raise bad_json("A key must be an object.")
    if not is_room_id(room_id):
        raise invalid_param("Not a room ID.")
    if not session_id or not fits(session_id):
        raise invalid_param("A session ID has 1 to 255 bytes.")
    numbers = []
    for name in ("first_message_index", "forwarded_count"):
        number = key.get(name)
        if number is None:
            raise missing_param(f"{name} is missing.")
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise bad_json(f"{name} must be a whole number.")
        numbers.append(number)
    is_verified = key.get("is_verified")
    if is_verified is None:
        raise missing_param("is_verified is missing.")
    if not isinstance(is_verified, bool):
        raise bad_json("is_verified must be a boolean.")
    return room_id, session_id, is_verified, *numbers, _text_of(key, "session_data", MOST_SESSION_DATA_BYTES)  # type: ignore[return-value]
