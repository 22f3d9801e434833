"""What takes media away: time, administrators, erasure; and what stays."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from eventlog.blobs import Blob, BlobLost, Blobs, path_of
from eventlog.configuration import load_settings
from eventlog.pools import Pool
from readers.media.pruning import (
    SQL,
    missing_files,
    orphans,
    prune,
    remove_contents,
    remove_uploads,
    remove_uploads_of,
)

pytestmark = pytest.mark.postgres

STORE = "select media.store_v1(%s, %s, %s, %s, %s, 'image/png', null, false, false, 100, 1000000)"


class Shelf:
    """Uploads as writers make them, and what there is of them."""

    def __init__(self, connection: AsyncConnection, pool: Pool, folder: Path) -> None:
        self.connection = connection
        self.pool = pool
        self.settings = replace(load_settings({"WALDEN_DATA_DIR": str(folder)}).media, preview_days=1.0)

    async def put(self, media_id: str, user_id: str | None, content: bytes, *, into_files: bool = False) -> Blob:
        writer = Blobs(self.pool, self.settings.directory, into_files=into_files).writer()
        await writer.begin()
        await writer.add(content)
        digest = await writer.finish()
        assert digest == hashlib.sha256(content).digest()
        values = [media_id, user_id, writer.blob, digest, writer.bytes]
        cursor = await self.connection.execute(STORE, values)
        assert await cursor.fetchone() == ("stored",)
        return Blob(writer.blob, writer.bytes, writer.file)

    async def one(self, query: Any, *values: Any) -> Any:
        row = await (await self.connection.execute(query, values)).fetchone()
        assert row is not None
        return row[0]

    async def contents(self) -> int:
        return int(await self.one("select count(*) from media.blobs"))

    async def usage(self, user_id: str) -> tuple[int, int]:
        cursor = await self.connection.execute("select files, bytes from media.usage where user_id = %s", [user_id])
        row = await cursor.fetchone()
        return (0, 0) if row is None else (row[0], row[1])


@pytest.fixture
async def shelf(database: str, tmp_path: Path) -> AsyncIterator[Shelf]:
    pool: Pool = Pool(database, open=False, min_size=1, max_size=2, kwargs={"autocommit": True})
    async with pool, await AsyncConnection.connect(database, autocommit=True) as connection:
        yield Shelf(connection, pool, tmp_path)


@pytest.fixture
async def maintenance(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection with the rights that maintenance has, and no more."""
    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute("set role walden_maintenance")
        yield connection


@pytest.mark.parametrize("into_files", [False, True])
async def test_a_content_goes_with_its_last_upload(
    shelf: Shelf, maintenance: AsyncConnection, into_files: bool
) -> None:
    content = os.urandom(600_000)
    blob = await shelf.put("one", "@a:x", content, into_files=into_files)
    await shelf.put("two", "@b:x", content, into_files=into_files)
    blobs = Blobs(shelf.pool, shelf.settings.directory)
    assert await remove_uploads(maintenance, ["one", "nothing"]) == 1
    await remove_contents(maintenance, shelf.settings.directory, 0)
    assert b"".join([part async for part in blobs.read(blob)]) == content
    assert (await shelf.usage("@a:x"), await shelf.usage("@b:x")) == ((0, 0), (1, 600_000))
    assert await remove_uploads_of(maintenance, "@b:x") == 1
    # The second one's own copy was never whole: it has a day.
    await shelf.connection.execute("update media.blobs set idle_since = idle_since - interval '3 days'")
    await remove_contents(maintenance, shelf.settings.directory, 0)
    assert await shelf.contents() == await shelf.one("select count(*) from media.chunks") == 0
    with pytest.raises(BlobLost):
        [part async for part in blobs.read(blob)]
    assert [path for path in shelf.settings.directory.rglob("*") if path.is_file()] == []


async def test_a_file_stays_as_long_as_a_backup_may_want_it(shelf: Shelf, maintenance: AsyncConnection) -> None:
    blob = await shelf.put("one", "@a:x", b"abc", into_files=True)
    assert blob.file is not None
    path = path_of(shelf.settings.directory, blob.file)
    await remove_uploads(maintenance, ["one"])
    assert await remove_contents(maintenance, shelf.settings.directory, 30) == 0
    assert path.read_bytes() == b"abc"
    await shelf.connection.execute("update media.blobs set idle_since = now() - interval '31 days'")
    assert await remove_contents(maintenance, shelf.settings.directory, 30) == 1
    assert not path.exists()


async def test_what_is_uploaded_again_before_it_went_stays(shelf: Shelf, maintenance: AsyncConnection) -> None:
    blob = await shelf.put("one", "@a:x", b"abc")
    await remove_uploads(maintenance, ["one"])
    again = await shelf.put("two", "@a:x", b"abc")
    assert again.blob != blob.blob
    await remove_contents(maintenance, shelf.settings.directory, 0)
    assert await shelf.one("select blob from media.uploads where media_id = 'two'") == blob.blob
    assert await shelf.one("select data from media.chunks where blob = %s", blob.blob) == b"abc"


async def test_time_takes_away_what_is_over_and_nothing_else(shelf: Shelf, maintenance: AsyncConnection) -> None:
    for media_id, user_id in (("kept", "@a:x"), ("unused", "@a:x"), ("held", "@a:x"), ("old", None), ("new", None)):
        await shelf.put(media_id, user_id, media_id.encode())
    for statement in (
        "insert into media.uploads (media_id, user_id, expires_at) values ('late', '@a:x', now() - interval '2 hours')",
        "insert into media.uploads (media_id, user_id, expires_at) values ('awaited', '@a:x', now() + interval '2 hours')",
        "insert into media.previews (url_hash, body, media_id, fetched_at) values ('a', '{}', 'old', now() - interval '2 days')",
        "insert into media.previews (url_hash, body, media_id) values ('b', '{}', 'new')",
        "update media.uploads set created_at = now() - interval '2 days' where user_id is null",
        "update media.uploads set used_on = current_date - 40 where media_id in ('unused', 'held')",
        "update media.uploads set quarantined_at = now() where media_id = 'held'",
        "insert into media.blobs (begun_at, idle_since) values (now() - interval '2 days', now() - interval '2 days')",
        "insert into media.blobs default values",
    ):
        await shelf.connection.execute(statement)
    done = await prune(maintenance, replace(shelf.settings, unused_days=30.0))
    assert (done.uploads, done.previews, done.contents) == (3, 1, 3)
    cursor = await shelf.connection.execute("select media_id from media.uploads order by 1")
    assert [row[0] for row in await cursor.fetchall()] == ["awaited", "held", "kept", "new"]
    assert await shelf.contents() == 4
    assert not await prune(maintenance, shelf.settings)


async def test_a_content_in_quarantine_stays_there_under_all_its_names(
    shelf: Shelf, maintenance: AsyncConnection
) -> None:
    await shelf.put("one", "@a:x", b"bad")
    await shelf.put("two", "@b:x", b"bad")
    await shelf.put("other", "@b:x", b"good")
    values = {"media_ids": ["one"], "held": True, "by": "ann"}
    assert (await maintenance.execute(SQL["quarantine"], values)).rowcount == 2
    await shelf.put("three", "@c:x", b"bad")
    cursor = await shelf.connection.execute(
        "select media_id from media.uploads where quarantined_by = 'ann' order by 1"
    )
    assert [row[0] for row in await cursor.fetchall()] == ["one", "three", "two"]
    values = {"media_ids": ["three"], "held": False, "by": None}
    assert (await maintenance.execute(SQL["quarantine"], values)).rowcount == 3


async def test_files_and_database_are_held_against_each_other(shelf: Shelf, maintenance: AsyncConnection) -> None:
    directory = shelf.settings.directory
    blobs = [await shelf.put(f"m{n}", "@a:x", b"x" * n, into_files=True) for n in range(1, 4)]
    assert await missing_files(maintenance, directory) == (3, [])
    names = [blob.file or "" for blob in blobs]
    path_of(directory, names[0]).unlink()
    path_of(directory, names[1]).write_bytes(b"")
    count, missing = await missing_files(maintenance, directory)
    assert (count, sorted(missing)) == (3, sorted(names[:2]))
    stray = path_of(directory, "0" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of a lost time")
    assert await orphans(maintenance, directory, 1) == []
    os.utime(stray, (time.time() - 90_000, time.time() - 90_000))
    assert await orphans(maintenance, directory, 1) == [stray]


async def test_a_user_may_have_so_much(shelf: Shelf) -> None:
    async def store(media_id: str, size: int, most_files: int, most_bytes: int) -> str:
        blob = await shelf.one("insert into media.blobs default values returning blob")
        digest = os.urandom(32)
        statement = "select media.store_v1(%s, '@a:x', %s, %s, %s, 't', null, false, false, %s, %s)"
        return str(await shelf.one(statement, media_id, blob, digest, size, most_files, most_bytes))

    assert await store("a", 60, 2, 100) == "stored"
    assert await store("b", 41, 2, 100) == "quota"
    assert await store("c", 40, 2, 100) == "stored"
    assert await store("d", 0, 2, 100) == "quota"
    assert await shelf.usage("@a:x") == (2, 100)


async def test_an_upload_that_took_too_long_is_not_stored(shelf: Shelf) -> None:
    blob = await shelf.one("insert into media.blobs (begun_at) values (now() - interval '1 day') returning blob")
    values = ["late", "@a:x", blob, b"x" * 32, 1]
    assert await shelf.one(STORE, *values) == "late"
    assert await shelf.usage("@a:x") == (0, 0)


async def test_writers_and_readers_cannot_take_media_away(database: str) -> None:
    for role in ("walden_writer", "walden_reader", "walden_roomserver", "walden_history"):
        async with await AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute(f"set role {role}".encode())
            for table in ("uploads", "chunks", "blobs", "thumbnails", "previews"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(f"delete from media.{table}".encode())
