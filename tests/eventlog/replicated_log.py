"""Logs on clusters of their own, one PostgreSQL per supported end of the range, for tests of slots and streams."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from clusters import Cluster, binaries
from psycopg import AsyncConnection

from eventlog.heartbeat import PREFIX, Emit
from eventlog.pgoutput import Column
from eventlog.replication import Subscriber
from eventlog.slots import SlotName, create_slot, database_oid, slot_health

VERSIONS = (18, 15)
ENTRIES = ("log", "entries")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[int], Cluster]]:
    """A function that gives the session's cluster of a version, started when it is first asked for."""
    clusters: dict[int, Cluster] = {}

    def get(version: int) -> Cluster:
        if version not in clusters:
            if binaries(version) is None:
                pytest.skip(f"no PostgreSQL {version} here")
            clusters[version] = Cluster(version, {"max_replication_slots": "40", "max_wal_senders": "40"}).__enter__()
        return clusters[version]

    yield get
    for cluster in clusters.values():
        cluster.destroy()


@dataclass
class Log:
    """A database with one insert-only log, its publication and a durable slot."""

    cluster: Cluster
    dsn: str
    connection: AsyncConnection[Any]
    slot: SlotName

    async def append(self, *texts: str | None) -> list[int]:
        """Insert entries in one transaction; returns their ids."""
        query = "insert into log.entries (room, body) select '!room', t from unnest(%s::text[]) t returning id"
        return [row[0] for row in await (await self.connection.execute(query, (list(texts),))).fetchall()]

    async def append_filler(self, count: int, size: int = 1500, each: int = 10) -> None:
        """Insert `count` entries of `size` bytes, `each` in a transaction; below 2,000 bytes nothing is compressed."""
        query = "insert into log.entries (room, body) select '!room', repeat('x', %s) from generate_series(1, %s)"
        for _ in range(count // each):
            await self.connection.execute(query, (size, each))

    async def value(self, query: Any, *values: Any) -> Any:
        """The first column of a query's first row."""
        row = await (await self.connection.execute(query, values or None)).fetchone()
        return row[0] if row else None

    async def slots(self) -> set[str]:
        """The names of the database's slots."""
        return {slot.slot_name for slot in await slot_health(self.connection)}

    async def confirmed(self) -> int:
        """What the server has as the durable slot's confirmed position."""
        query = "select (confirmed_flush_lsn - '0/0')::int8 from pg_replication_slots where slot_name = %s"
        return int(await self.value(query, str(self.slot)))

    def subscriber(self, dsn: str | None = None, **more: Any) -> Subscriber:
        """A subscriber to the log's id and body, from the durable slot."""
        wanted = more.pop("wanted", {ENTRIES: ["id", Column("body", optional=True)]})
        return Subscriber(dsn or self.dsn, more.pop("slot", str(self.slot)), ["walden_log"], wanted=wanted, **more)

    @property
    def heartbeat(self) -> Emit:
        """Emits a heartbeat over a connection of its own."""

        async def emit(payload: bytes) -> None:
            async with await AsyncConnection.connect(self.dsn, autocommit=True) as connection:
                await connection.execute("select pg_logical_emit_message(false, %s, %b)", (PREFIX, payload))

        return emit

    async def drop_slot_under_load(self) -> None:
        """What a DBA does to a slot in use: end its session and drop it, until it is gone."""
        end = "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = %s"
        drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s"
        while await self.value("select 1 from pg_replication_slots where slot_name = %s", str(self.slot)):
            await self.connection.execute(end, (str(self.slot),))
            try:
                await self.connection.execute(drop, (str(self.slot),))
            except psycopg.errors.ObjectInUse:
                continue


# Once more on an older server takes half a minute, all tests together.
@pytest.fixture(
    params=[
        pytest.param(version, id=f"postgres{version}", marks=[pytest.mark.slow] if version != VERSIONS[0] else [])
        for version in VERSIONS
    ]
)
async def log(request: pytest.FixtureRequest, running: Callable[[int], Cluster]) -> AsyncIterator[Log]:
    """A fresh log on each version."""
    async with log_on(running(request.param)) as made:
        yield made


async def eventually(look: Callable[[], Awaitable[object]], expected: object, seconds: float = 10.0) -> None:
    """Wait until `look` gives what is expected (or, given a predicate, what satisfies it)."""
    until = time.monotonic() + seconds
    while True:
        found = await look()
        if (callable(expected) and expected(found)) or found == expected:
            return
        assert time.monotonic() < until, f"after {seconds} s it still is {found}"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def log_on(cluster: Cluster) -> AsyncIterator[Log]:
    """A fresh log in a database of its own on the cluster given; the database and its slots go away."""
    name = f"log{next(_numbers)}"
    cluster.execute(f"create database {name}")
    dsn = cluster.dsn(name)
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("create schema log")
        await connection.execute(
            "create table log.entries (id int8 generated always as identity primary key, room text, body text)"
        )
        await connection.execute("create publication walden_log for table log.entries with (publish = 'insert')")
        slot = SlotName(await database_oid(connection), "room")
        await create_slot(connection, slot, lock_timeout=60)
        yield Log(cluster, dsn, connection, slot)
    if cluster.process is not None:
        # The database stays until its cluster goes (dropping one costs a checkpoint); its slots and sessions do not.
        cluster.execute(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'")
        cluster.execute(
            f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{name}'"
        )
