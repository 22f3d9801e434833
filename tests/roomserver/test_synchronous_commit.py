"""With a synchronous standby, what is visible is safe: a room server that is stopped while it waits makes no exception."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from clusters import Cluster
from fixtures_postgres import IDENTITY
from psycopg.conninfo import make_conninfo
from running_roomserver import judged, receive, running, settings_for

from eventlog.migrations import migrate
from eventlog.provision import provision
from roomserver import decisions
from tests.matrix.room_dag import RoomDag

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

WAITS = (
    "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and application_name like 'walden roomserver%'"
)
JUDGED = "select count(*) from eventlog.outputs"


async def test_a_verdict_that_waits_for_a_standby_does_not_become_visible_when_its_room_server_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "COMMIT_SECONDS", 0.2)
    with Cluster(18) as cluster:
        cluster.execute("create database walden")
        dsn = cluster.dsn("walden")
        await migrate(dsn)
        await provision(dsn, dsn, IDENTITY)
        *opening, last = RoomDag("11", 5, servers=2, users_per_server=2).grow(5).events.values()
        async with running(settings_for(dsn, tmp_path)):
            receive(dsn, opening)
            await judged(dsn, len(opening))
            cluster.execute("alter system set synchronous_standby_names = 'absent'")
            cluster.execute("select pg_reload_conf()")
            # Visible at once, as an entry is of which only the verdict was on its way when the standby went.
            receive(make_conninfo(dsn, options="-c synchronous_commit=local"), [last])
            end = time.monotonic() + 30
            while cluster.execute(WAITS) != [(1,)]:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
        assert cluster.execute(JUDGED, "walden") == [(len(opening),)]
