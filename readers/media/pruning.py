"""What takes media away: time, administrators, erasure. Part of maintenance, and of `walden media`.

Invariant: no content goes while an upload refers to it, and each goes piece by piece, in transactions that write little; what is
broken off is taken up by the next round. A file that the database does not know is never removed but by who asks for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from psycopg import AsyncConnection

from eventlog.blobs import path_of
from eventlog.queries import Queries
from eventlog.settings import Media

SQL: Final = Queries("readers.media", "pruning.sql")
log = structlog.get_logger(__name__)

UPLOADS: Final = 500
"""Uploads that one transaction removes."""
CONTENTS: Final = 100
CHUNKS: Final = 64
"""Pieces that one transaction removes: of each, its WAL has some 10 KB."""
NAME_LETTERS: Final = 32
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Pruned:
    """What a round took away."""

    uploads: int = 0
    previews: int = 0
    contents: int = 0

    def __bool__(self) -> bool:
        return bool(self.uploads or self.previews or self.contents)


async def prune(connection: AsyncConnection, settings: Media) -> Pruned:
    """Takes away what is over. Raises psycopg.Error, OSError."""
    done = Pruned()
    while count := (
        await connection.execute(SQL["forget_previews"], {"days": settings.preview_days, "most": UPLOADS})
    ).rowcount:
        done.previews += count
    queries: list[tuple[str, dict[str, Any]]] = [("overdue", {}), ("pictures", {})]
    if settings.unused_days:
        queries.append(("unused", {"days": settings.unused_days}))
    for name, values in queries:
        done.uploads += await _remove_all(connection, name, values)
    done.contents = await remove_contents(connection, settings.directory, settings.keep_files_days)
    return done


async def remove_uploads(connection: AsyncConnection, media_ids: Sequence[str]) -> int:
    """Takes uploads away; returns how many there were. Their contents go with `remove_contents`."""
    gone = 0
    for some in _parts(media_ids):
        row = await (await connection.execute(SQL["remove"], {"media_ids": list(some)})).fetchone()
        gone += row[0] if row else 0
    return gone


async def remove_uploads_of(connection: AsyncConnection, user_id: str) -> int:
    """Takes all uploads of a user away; returns how many there were."""
    return await _remove_all(connection, "of_user", {"user_id": user_id})


async def remove_contents(connection: AsyncConnection, directory: Path, file_days: float) -> int:
    """Takes away contents that no upload has, files after so many days; returns how many. Raises psycopg.Error, OSError."""
    done = 0
    while True:
        cursor = await connection.execute(SQL["condemn"], {"file_days": file_days, "most": CONTENTS})
        condemned = await cursor.fetchall()
        if not condemned:
            return done
        for blob, file in condemned:
            while (await connection.execute(SQL["remove_chunks"], {"blob": blob, "most": CHUNKS})).rowcount:
                pass
            await connection.execute(SQL["remove_thumbnails"], {"blob": blob})
            if file is not None:
                await asyncio.to_thread(path_of(directory, file).unlink, missing_ok=True)
            done += (await connection.execute(SQL["remove_blob"], {"blob": blob})).rowcount


async def missing_files(connection: AsyncConnection, directory: Path) -> tuple[int, list[str]]:
    """How many files the database knows, and which of them are not there, or have another length."""
    count, missing, after = 0, [], ""
    while rows := await (await connection.execute(SQL["files"], {"after": after, "most": UPLOADS})).fetchall():
        count += len(rows)
        after = rows[-1][0]
        missing += await asyncio.to_thread(_wrong, directory, rows)
    return count, missing


async def orphans(connection: AsyncConnection, directory: Path, days: float) -> list[Path]:
    """Files that the database does not know and nobody has written to for so many days: of a time that a restore has lost."""
    before = time.time() - days * 86_400
    found: list[Path] = []
    for some in _parts(await asyncio.to_thread(lambda: list(_old_files(directory, before)))):
        names = {path.parent.name + path.name: path for path in some}
        cursor = await connection.execute(SQL["known_files"], {"files": list(names)})
        known = {name for (name,) in await cursor.fetchall()}
        found += [path for name, path in names.items() if name not in known]
    return found


async def _remove_all(connection: AsyncConnection, query: str, values: dict[str, Any]) -> int:
    gone = 0
    while rows := await (await connection.execute(SQL[query], {**values, "most": UPLOADS})).fetchall():
        removed = await remove_uploads(connection, [media_id for (media_id,) in rows])
        gone += removed
        if not removed:
            break
    return gone


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[place : place + UPLOADS] for place in range(0, len(items), UPLOADS))


def _wrong(directory: Path, rows: list[tuple[str, int]]) -> list[str]:
    found = []
    for name, size in rows:
        try:
            if path_of(directory, name).stat().st_size == size:
                continue
        except OSError:
            pass
        found.append(name)
    return found


def _old_files(directory: Path, before: float) -> Iterator[Path]:
    if not directory.is_dir():
        return
    for folder in directory.iterdir():
        if len(folder.name) == 2 and folder.is_dir():
            for entry in os.scandir(folder):
                if len(folder.name + entry.name) == NAME_LETTERS and entry.stat().st_mtime < before:
                    yield Path(entry.path)
