"""With a synchronous standby, what is visible is safe: a room server that is stopped while it waits makes no exception."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from clusters import Cluster
from fixtures_postgres import IDENTITY
from psycopg.conninfo import make_conninfo
from running_roomserver import judged, receive, running, settings_for

from eventlog.migrations import migrate
from eventlog.provision import provision
from roomserver import decisions, service
from tests.matrix.room_dag import RoomDag

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

WAITS = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and application_name like '{} %'"
JUDGED = "select count(*) from eventlog.outputs"


async def _installed(cluster: Cluster) -> str:
    """DSN of a database that a room server can begin with."""
    cluster.execute("create database walden")
    dsn = cluster.dsn("walden")
    await migrate(dsn)
    await provision(dsn, dsn, IDENTITY, lock_timeout=60)
    return dsn


async def _waits(cluster: Cluster, who: str) -> None:
    """Until a session of theirs waits for the standby."""
    end = time.monotonic() + 60
    while cluster.execute(WAITS.format(who)) != [(1,)]:
        assert time.monotonic() < end, cluster.tail()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _standby_away(cluster: Cluster) -> AsyncIterator[None]:
    """The standby that commits wait for is not there, and every process of the server knows it."""
    cluster.execute("alter system set synchronous_standby_names = 'absent'")
    cluster.execute("select pg_reload_conf()")
    with psycopg.connect(cluster.dsn(application_name="probe commits"), autocommit=True) as probe:
        end = time.monotonic() + 60
        while cluster.execute(WAITS.format("probe")) != [(1,)]:
            assert time.monotonic() < end, cluster.tail()
            if not probe.pgconn.is_busy():
                while probe.pgconn.get_result() is not None:
                    pass
                # Any commit that writes, until one has to wait.
                probe.pgconn.send_query(b"comment on database postgres is 'a probe'")
            await asyncio.sleep(0.05)
            probe.pgconn.consume_input()
        yield
        probe.pgconn.finish()


async def test_a_verdict_that_waits_for_a_standby_does_not_become_visible_when_its_room_server_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "COMMIT_SECONDS", 0.2)
    with Cluster(18) as cluster:
        dsn = await _installed(cluster)
        *opening, last = RoomDag("11", 5, servers=2, users_per_server=2).grow(5).events.values()
        async with running(settings_for(dsn, tmp_path)) as server:
            receive(dsn, opening)
            await judged(dsn, len(opening))
            async with _standby_away(cluster):
                # Visible at once, as an entry is of which only the verdict was on its way when the standby went.
                receive(make_conninfo(dsn, options="-c synchronous_commit=local"), [last])
                await _waits(cluster, "walden roomserver")
                assert server.decisions.position == len(opening)
        assert cluster.execute(JUDGED, "walden") == [(len(opening),)]


async def test_a_room_server_with_nothing_under_way_stops_also_while_the_standby_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LEAVE_SECONDS", 0.5)
    with Cluster(18) as cluster:
        dsn = await _installed(cluster)
        opening = [*RoomDag("11", 5, servers=2, users_per_server=2).grow(5).events.values()]
        async with running(settings_for(dsn, tmp_path)):
            receive(dsn, opening)
            await judged(dsn, len(opening))
            async with _standby_away(cluster):
                pass
        cluster.execute("alter system reset synchronous_standby_names")
        cluster.execute("select pg_reload_conf()")
        # The next one takes the shard over and goes on.
        async with running(settings_for(dsn, tmp_path)):
            more = [*RoomDag("11", 6, servers=2, users_per_server=2).grow(5).events.values()]
            receive(dsn, more)
            await judged(dsn, len(opening) + len(more))
