"""Maintenance keeps the outputs slot moving and heals it, and removes what has expired."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection

from eventlog.configuration import load_settings
from eventlog.provision import outputs_slot
from eventlog.slots import database_oid, slot_health
from readers import maintenance

pytestmark = pytest.mark.postgres


@contextlib.asynccontextmanager
async def _running(dsn: str, folder: Path) -> AsyncIterator[AsyncConnection]:
    settings = load_settings({"WALDEN_DATABASE_DSN": dsn}, folder / "walden.toml")
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        task = asyncio.create_task(maintenance.run(settings))
        try:
            yield connection
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.05)


async def test_the_outputs_slot_follows_the_end_of_the_wal(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SLOT_SECONDS", 0.1)
    async with _running(provisioned, tmp_path) as connection:
        slot = str(outputs_slot(await database_oid(connection)))
        cursor = await connection.execute("select (pg_logical_emit_message(false, 'x', 'y') - '0/0')::bigint")
        row = await cursor.fetchone()
        assert row is not None

        async def passed() -> bool:
            found = await slot_health(connection, slot)
            return (found[0].confirmed_lsn or 0) >= row[0]

        await _until(passed)


async def test_a_dropped_outputs_slot_is_made_again(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SLOT_SECONDS", 0.1)
    async with _running(provisioned, tmp_path) as connection:
        slot = str(outputs_slot(await database_oid(connection)))
        await _drop_when_idle(connection, slot)

        async def there() -> bool:
            return bool(await slot_health(connection, slot))

        await _until(there)


async def _drop_when_idle(connection: AsyncConnection, slot: str) -> None:
    for _ in range(100):
        try:
            await connection.execute("select pg_drop_replication_slot(%s)", [slot])
            return
        except psycopg.errors.ObjectInUse:
            await asyncio.sleep(0.01)
    raise AssertionError("the slot stayed in use")


async def test_what_has_expired_is_removed_and_nothing_else(provisioned: str, tmp_path: Path) -> None:
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        await connection.execute(
            "insert into eventlog.txns (key, entry) values"
            " ('old', eventlog.id_at(now() - interval '8 days')), ('new', eventlog.id_at(now()))"
        )
        await connection.execute(
            "insert into writer.uia_sessions (session_id, request_hash, created_at) values"
            " ('old', 'x', now() - interval '2 days'), ('new', 'x', now())"
        )
    async with _running(provisioned, tmp_path) as connection:

        async def removed() -> bool:
            txns = await (await connection.execute("select key from eventlog.txns")).fetchall()
            sessions = await (await connection.execute("select session_id from writer.uia_sessions")).fetchall()
            return txns == [(b"new",)] and sessions == [("new",)]

        await _until(removed)
