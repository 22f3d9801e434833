"""Uploads: bytes of a client become what an mxc:// URI stands for.

Invariant: a URI is answered once its content is safe, all of it, and never stands for anything else. An equal content takes its
place only while it is there. What a user may have in all is checked in the transaction that stores, whatever was promised before.
Source: client-server API, "Content repository".
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import psycopg

from eventlog.blobs import Blob, Blobs
from eventlog.pace import Pace
from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe
from eventlog.settings import Media
from matrix.errors import MatrixError, forbidden, invalid_param, limit_exceeded, not_found, unknown

SQL = Queries("writer.media", "uploads.sql")

AT_ONCE: Final = 64
"""Uploads that a process takes at the same time."""
EACH: Final = 16
"""Those of one user: an upload may take an hour, and nobody takes the place of all."""
OCTETS: Final = "application/octet-stream"
_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,255}")
_UNLIMITED: Final = 2**62


@dataclass(frozen=True, slots=True)
class Described:
    """What an uploader says of a content."""

    content_type: str
    file_name: str | None

    @classmethod
    def checked(cls, content_type: str | None, file_name: str | None) -> Described:
        """M_INVALID_PARAM for what is too long, or no text."""
        content_type = (content_type or OCTETS).strip() or OCTETS
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise invalid_param("Content-Type has other characters than ASCII's, or more than 255.")
        if file_name is not None and len(file_name.encode("utf-8", "replace")) > 1024:
            raise invalid_param("filename is longer than 1,024 bytes.")
        return cls(content_type, safe(file_name) if file_name else None)


@dataclass(frozen=True, slots=True)
class Awaited:
    """A URI that waits for its content, until a time in milliseconds since 1970."""

    media_id: str
    expires_at: int


class Stored(NamedTuple):
    """An upload, and its content as it was written: for a day it can be read there, whatever other content is equal."""

    media_id: str
    content: Blob


class Uploads:
    """Stores what is uploaded. The pool is of the role writer, and of its own: uploads wait for each other alone."""

    def __init__(self, pool: Pool, settings: Media, processes: int = 1) -> None:
        self._pool = pool
        self._settings = settings
        pace = Pace(settings.upload_bytes_per_second / processes)
        self._blobs = Blobs(pool, settings.directory, into_files=settings.store == "directory", pace=pace)
        self._running: Counter[str] = Counter()

    async def expect(self, user_id: str) -> Awaited:
        """A URI whose content comes later. M_LIMIT_EXCEEDED when the user has too many."""
        await self._check_allowance(user_id, 0)
        values = {
            "media_id": new_media_id(),
            "user_id": user_id,
            "seconds": self._settings.pending_hours * 3600,
            "most": self._settings.pending_uploads,
        }
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["expect"], values)).fetchone()
        if row is None:
            raise limit_exceeded(60_000)
        return Awaited(str(values["media_id"]), row[0])

    async def check_awaited(self, user_id: str, media_id: str) -> None:
        """M_FORBIDDEN, M_CANNOT_OVERWRITE_MEDIA, M_NOT_FOUND unless a URI waits for this user's content."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["awaited"], {"media_id": media_id})).fetchone()
        if row is None:
            raise not_found("Nobody has asked for that URI.")
        owner, there, in_time = row
        if there:
            raise MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "That URI has its content already.")
        if owner != user_id:
            raise forbidden("Another user has asked for that URI.")
        if not in_time:
            raise not_found("The time of that URI is over.")

    async def store(
        self, user_id: str | None, parts: AsyncIterator[bytes], said: Described, *, length: int = 0, media_id: str = ""
    ) -> Stored:
        """Stores a content, for a URI that awaits it or a new one.

        `length` is what the client announced, 0 for nothing. M_FORBIDDEN beyond the user's quota, M_LIMIT_EXCEEDED when too many
        upload, what `parts` raises, psycopg.Error, OSError.
        """
        async with self._turn(user_id or ""):
            if user_id is not None:
                await self._check_allowance(user_id, length)
            writer = self._blobs.writer()
            try:
                await writer.begin()
                async for part in parts:
                    await writer.add(part)
                digest = await writer.finish()
            finally:
                writer.close()
            values: dict[str, Any] = {
                "media_id": media_id or new_media_id(),
                "user_id": user_id,
                "blob": writer.blob,
                "sha256": digest,
                "bytes": writer.bytes,
                "content_type": said.content_type,
                "file_name": said.file_name,
                "awaited": bool(media_id),
                "legacy": self._settings.unauthenticated,
                "most_files": self._settings.user_max_files or _UNLIMITED,
                "most_bytes": self._settings.user_max_bytes or _UNLIMITED,
            }
            said_of_it = await self._commit(values)
        match said_of_it:
            case "stored":
                return Stored(str(values["media_id"]), Blob(writer.blob, writer.bytes, writer.file))
            case "quota":
                raise _over_quota()
            case "unknown":
                # Somebody was faster, or its time was over meanwhile.
                await self.check_awaited(user_id or "", media_id)
        raise unknown(408, "The upload took too long.")

    async def _commit(self, values: dict[str, Any]) -> str:
        """What became of it, as media.store_v1 says it."""
        async with self._pool.connection() as connection:
            equal = await (await connection.execute(SQL["equal"], {"sha256": values["sha256"]})).fetchone()
        lost = None if equal is None or await self._blobs.is_there(Blob(*equal)) else equal[0]
        async with self._pool.connection() as connection, connection.transaction():
            if lost is not None:
                # As a file that a restore has not brought back: those who have uploaded it have it again.
                await connection.execute(SQL["replace"], {**values, "lost": lost})
            row = await (await connection.execute(SQL["store"], values)).fetchone()
            assert row is not None
            outcome: str = row[0]
            if outcome != "stored":
                raise psycopg.Rollback
        return outcome

    async def name(self, media_id: str, content_type: str) -> None:
        """Says of which type an upload of the server's own is, once that is known."""
        async with self._pool.connection() as connection:
            await connection.execute(SQL["name"], {"media_id": media_id, "content_type": content_type})

    def read(self, content: Blob) -> AsyncIterator[bytes]:
        """A content that was stored just now."""
        return self._blobs.read(content)

    async def _check_allowance(self, user_id: str, length: int) -> None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["allowance"], {"user_id": user_id})).fetchone()
        files, size = row or (0, 0)
        most_files, most_bytes = self._settings.user_max_files, self._settings.user_max_bytes
        if (most_files and files >= most_files) or (most_bytes and size + length > most_bytes):
            raise _over_quota()

    @asynccontextmanager
    async def _turn(self, user_id: str) -> AsyncIterator[None]:
        if self._running.total() >= AT_ONCE or self._running[user_id] >= EACH:
            raise limit_exceeded(2_000)
        self._running[user_id] += 1
        try:
            yield
        finally:
            self._running[user_id] -= 1
            if not self._running[user_id]:
                del self._running[user_id]


def _over_quota() -> MatrixError:
    return forbidden("You have uploaded as much as you may. Ask the server's administrators.")


def new_media_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_urlsafe(18)
