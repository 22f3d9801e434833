"""Contents of uploads: written piece by piece, read piece by piece, in the database or in a directory.

Invariant: no more than a piece of a content is in memory, no transaction holds more than one, and no connection is held while a
client is waited for. A content is found by nobody before `media.store_v1` has given it a hash, and never changes afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

from eventlog.pace import Pace
from eventlog.pools import Pool
from eventlog.queries import Queries

SQL = Queries("eventlog", "blobs.sql")

PIECE_BYTES: Final = 262_144
"""What is written at once: `media.chunks` has rows of so much."""
READ_BYTES: Final = 131_072
"""What is read at once: a slow client holds so much of our memory, and as much again in its socket's buffer."""


class BlobLost(OSError):
    """A content that is not where it should be."""


class Blob(NamedTuple):
    """A content: its number, length, and the name of its file, if it has one."""

    blob: int
    bytes: int
    file: str | None


class BlobWriter:
    """One content being written: `add` what comes, then `finish`."""

    def __init__(self, pool: Pool, directory: Path | None, pace: Pace) -> None:
        self._pool = pool
        self._directory = directory
        self._pace = pace
        self._pending = bytearray()
        self._pieces = 0
        self._digest = hashlib.sha256()
        self._file: int | None = None
        self.file: str | None = None
        self.blob = 0
        self.bytes = 0

    async def begin(self) -> None:
        """Makes the place that it is written to. Raises psycopg.Error, OSError."""
        if self._directory is not None:
            self.file = secrets.token_hex(16)
            self._file = await asyncio.to_thread(_create, path_of(self._directory, self.file))
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["begin"], {"file": self.file})).fetchone()
        assert row is not None
        self.blob = row[0]

    async def add(self, data: bytes) -> None:
        """Takes what comes next. Raises psycopg.Error, OSError."""
        self.bytes += len(data)
        self._pending += data
        while len(self._pending) >= PIECE_BYTES:
            piece = bytes(self._pending[:PIECE_BYTES])
            del self._pending[:PIECE_BYTES]
            await self._write(piece)

    async def finish(self) -> bytes:
        """Writes what is left; the sha256 of it all. Raises psycopg.Error, OSError."""
        if self._pending:
            await self._write(bytes(self._pending))
            self._pending = bytearray()
        if self._file is not None:
            file, self._file = self._file, None
            await asyncio.to_thread(_finish, file)
        return self._digest.digest()

    def close(self) -> None:
        """Lets go of the file. What was not finished is taken away a day later."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def _write(self, piece: bytes) -> None:
        self._digest.update(piece)
        await self._pace.take(len(piece))
        if self._file is not None:
            await asyncio.to_thread(_write, self._file, piece)
        else:
            values = {"blob": self.blob, "number": self._pieces, "data": piece}
            async with self._pool.connection() as connection:
                await connection.execute(SQL["write"], values)
        self._pieces += 1


class Blobs:
    """Where contents are. `directory` is where files are, whether or not new ones are put there; `pace` is that of writing."""

    def __init__(self, pool: Pool, directory: Path, *, into_files: bool = False, pace: Pace | None = None) -> None:
        self._pool = pool
        self._directory = directory
        self._into_files = into_files
        self._pace = pace or Pace(0)

    def writer(self) -> BlobWriter:
        """A content that will be written."""
        return BlobWriter(self._pool, self._directory if self._into_files else None, self._pace)

    async def read(self, blob: Blob, first: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `first` up to and without `end`, in parts. Raises BlobLost, psycopg.Error."""
        end = blob.bytes if end is None else min(end, blob.bytes)
        place = first
        while place < end:
            number, offset = divmod(place, PIECE_BYTES)
            wanted = min(READ_BYTES, PIECE_BYTES - offset, end - place)
            part = await (self._of_file(blob, place, wanted) if blob.file else self._part(blob, number, offset, wanted))
            if len(part) != wanted:
                raise BlobLost(f"content {blob.blob} ends before its time")
            place += len(part)
            yield part

    async def is_there(self, blob: Blob) -> bool:
        """Whether a content is where it should be, and as long; one in the database is."""
        if blob.file is None:
            return True
        return await asyncio.to_thread(_length, path_of(self._directory, blob.file)) == blob.bytes

    async def _part(self, blob: Blob, number: int, offset: int, wanted: int) -> bytes:
        values = {"blob": blob.blob, "number": number, "first": offset + 1, "bytes": wanted}
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(SQL["read"], values)
            row = await cursor.fetchone()
        if row is None:
            raise BlobLost(f"content {blob.blob} lacks piece {number}")
        found: bytes = row[0]
        return found

    async def _of_file(self, blob: Blob, place: int, wanted: int) -> bytes:
        assert blob.file is not None
        try:
            return await asyncio.to_thread(_read, path_of(self._directory, blob.file), place, wanted)
        except OSError as error:
            raise BlobLost(f"content {blob.blob}: {error}") from error


def path_of(directory: Path, name: str) -> Path:
    """Where a file is: in a folder of its first two letters, so that none gets too large."""
    return directory / name[:2] / name[2:]


def _create(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write(file: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]


def _finish(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _length(path: Path) -> int:
    """Of a file. -1: there is none."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _read(path: Path, place: int, wanted: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, wanted, place)
    finally:
        os.close(file)
