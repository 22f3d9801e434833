"""What an mxc:// URI stands for, and reading it.

Invariant: what is quarantined, has expired or never was is not found, alike; what is awaited is waited for, a bounded time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import psycopg
import structlog

from eventlog.blobs import Blob, BlobLost, Blobs
from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from eventlog.settings import Media
from matrix.errors import MatrixError, limit_exceeded, not_found

SQL = Queries("readers.media", "media.sql")
log = structlog.get_logger(__name__)

MOST_WAIT: Final = 60.0
"""How long content that comes later is waited for at most, in seconds."""
LOOK_SECONDS: Final = 0.5
MOST_WAITING: Final = 200
"""Requests of a process that wait so."""
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


class Found(NamedTuple):
    """An upload with its content."""

    media_id: str
    blob: Blob
    sha256: bytes
    content_type: str
    file_name: str | None
    legacy: bool
    stale: bool
    """Whether nobody has noted its use today."""


class Library:
    """Finds uploads. The pool is of the role reader, and of its own: downloads wait for each other alone."""

    def __init__(self, pool: Pool, settings: Media, server_name: str) -> None:
        self.pool = pool
        self._blobs = Blobs(pool, settings.directory)
        self._server_name = server_name
        self._unauthenticated = settings.unauthenticated
        self._waiting = 0

    async def find(self, server_name: str, media_id: str, wait: float, *, anybody: bool = False) -> Found:
        """What a URI stands for. `anybody`: who asks is not known. M_NOT_FOUND, M_NOT_YET_UPLOADED."""
        if server_name != self._server_name or not _MEDIA_ID.fullmatch(media_id):
            raise not_found("There is no such media on this server.")
        loop = asyncio.get_running_loop()
        end = loop.time() + min(wait, MOST_WAIT)
        found = await self._look(media_id)
        if found is None:
            if self._waiting >= MOST_WAITING:
                raise limit_exceeded(2_000)
            self._waiting += 1
            try:
                while found is None and loop.time() < end:
                    await asyncio.sleep(min(LOOK_SECONDS, max(end - loop.time(), 0)))
                    found = await self._look(media_id)
            finally:
                self._waiting -= 1
        if found is None:
            raise MatrixError(504, "M_NOT_YET_UPLOADED", "The content has not been uploaded yet.")
        if anybody and not (self._unauthenticated or found.legacy):
            raise not_found("Media are for users of this server: log in.")
        if found.stale:
            await self._note_use(media_id)
        return found

    def read(self, found: Found, first: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The content, part by part. Raises BlobLost, psycopg.Error."""
        return self._blobs.read(found.blob, first, end)

    async def open(self, found: Found, first: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The same, once its first part is here. M_NOT_FOUND for a content that is lost, as a file that was not restored."""
        parts = self.read(found, first, end)
        try:
            part = await anext(parts, b"")
        except BlobLost as error:
            raise self.lost(found, error) from error
        return _with_first(part, parts)

    def lost(self, found: Found, error: BlobLost) -> MatrixError:
        """What is answered, and said in the log, when the content is not where it should be."""
        log.error("the content of an upload is lost", media_id=found.media_id, error=str(error))
        return not_found("The content of that is lost.")

    async def _look(self, media_id: str) -> Found | None:
        """None: it is awaited. M_NOT_FOUND."""
        async with self.pool.connection() as connection:
            row = await (await connection.execute(SQL["upload"], {"media_id": media_id})).fetchone()
        if row is None or row[8]:
            raise not_found("There is no such media on this server.")
        blob, size, file, digest, content_type, file_name, legacy, stale, _ = row
        if blob is None:
            return None
        name = None if file_name is None else unsafe(file_name)
        return Found(media_id, Blob(blob, size, file), digest, content_type, name, legacy, stale)

    async def _note_use(self, media_id: str) -> None:
        try:
            async with self.pool.connection() as connection:
                await connection.execute(SQL["used"], {"media_id": media_id})
        except psycopg.Error as error:
            log.warning("that media is used was not noted", error=str(error).strip())


async def _with_first(part: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if part:
        yield part
    async for later in parts:
        yield later
