"""An upgrade without a pause: migrations are applied while people talk and an analyst reads, processes are replaced in between."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from load import Load, compare
from people import Person
from projections import differences
from whole_server import WholeServer

from eventlog.migrations import applied, migrate, migration_names

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

RECOVERY_SECONDS = 90.0
# As an upgrade has them: what new code needs beside what old code has, then what only old code needed. Both lock busy tables.
PRE = """\
alter table eventlog.events add column tried text;
alter table roomserver.heads add column tried integer not null default 0;
create function eventlog.tried_v1(entry bigint) returns text language sql stable security definer set search_path = ''
begin atomic
    select e.tried from eventlog.events e where e.id = entry;
end;
"""
INDEX = """\
-- outside a transaction
drop index concurrently if exists roomserver.heads_tried;
create index concurrently heads_tried on roomserver.heads (tried);
"""
POST = """\
drop function eventlog.tried_v1(bigint);
alter table eventlog.events drop column tried;
alter table roomserver.heads drop column tried;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations there are, and three of the next release."""
    found = tmp_path / "migrations"
    found.mkdir()
    for name in migration_names():
        (found / name).write_text("raise: it is applied already")
    (found / "9000_pre_tried.sql").write_text(PRE)
    (found / "9001_pre_tried_index.sql").write_text(INDEX)
    (found / "9002_post_tried.sql").write_text(POST)
    return found


@contextlib.contextmanager
def reading(dsn: str) -> Iterator[None]:
    """An analyst's long read: a transaction that has read the log and stays open."""
    with psycopg.connect(dsn) as analyst:
        analyst.execute("select count(*) from eventlog.events, roomserver.heads")
        yield
        analyst.rollback()


async def test_migrations_and_restarts_under_load_lose_nothing_and_hold_up_nobody(
    tmp_path: Path, folder: Path, figures: Callable[[str], None]
) -> None:
    with WholeServer(tmp_path / "d") as server:
        dsn = server.settings.dsn()
        load = await Load.prepare(server.url, 4, 2, random.Random(5))
        said: list[str] = []
        waiting = asyncio.Event()

        def say(sentence: str) -> None:
            said.append(sentence)
            waiting.set()

        try:
            async with Person(server.url) as observer, Person(server.url) as late:
                for person in (observer, late):
                    await person.register()
                    for room_id in load.rooms:
                        await person.join(room_id)
                observer.listen()
                load.begin()
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                with reading(dsn):
                    migrating = asyncio.create_task(migrate(dsn, "pre", source=folder, say=say))
                    await waiting.wait()
                    # It waits, and nobody waits behind it.
                    waits = [await load.recovered(time.monotonic(), RECOVERY_SECONDS) for _ in range(3)]
                    assert not migrating.done()
                    assert "9000_pre_tried.sql waits for" in said[0]
                assert await migrating == ["9000_pre_tried.sql", "9001_pre_tried_index.sql"]
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                # Old code and new code work over one schema: processes are replaced one after the other.
                for name in ("maintenance", "roomserver-0", "api"):
                    await asyncio.to_thread(server.kill, name)
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                with reading(dsn):
                    migrating = asyncio.create_task(migrate(dsn, "post", source=folder))
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    assert not migrating.done()
                assert await migrating == ["9002_post_tried.sql"]
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                await load.end()
                last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
                for room_id, event_id in zip(load.rooms, last, strict=True):
                    await observer.until_seen(room_id, event_id)
                await late.sync()
                compare(load, [observer, late])
            await asyncio.to_thread(server.rest)
            assert await asyncio.to_thread(differences, dsn) == {}
        finally:
            await load.close()
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            assert (await applied(connection))[-3:] == migration_names(folder)[-3:]
        figures(
            f"migrations under load: {load.count} events acknowledged; while one waited for a reader, every room took a new "
            f"message within {max(waits):.2f} s"
        )
