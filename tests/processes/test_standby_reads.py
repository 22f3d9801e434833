"""Sync decodes from and queries a hot standby when it is told to; everything that is written goes to the primary."""

import asyncio
import json
import random
import time
from pathlib import Path

import pytest
from debian import missing
from load import Load, compare
from patroni_cluster import ETCD, PatroniCluster
from people import Person
from psycopg.conninfo import make_conninfo
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

RECOVERY_SECONDS = 90.0
SYNC_SESSIONS = (
    "select count(*) from pg_stat_activity where application_name = 'walden sync' and backend_type = 'walsender'"
)
READERS = "select count(*) from pg_stat_activity where application_name = 'walden api standby'"


@pytest.fixture(autouse=True)
def _installed() -> None:
    if why := missing(ETCD, "etcd-server"):
        pytest.skip(why)


async def test_sync_reads_a_standby_and_survives_its_promotion(tmp_path: Path) -> None:
    with PatroniCluster(18) as cluster:
        cluster.execute("create database walden", dbname="postgres")
        primary = cluster.leader()
        assert primary is not None
        standby = cluster.other(primary)
        environ = {
            "WALDEN_DATABASE_DSN": cluster.dsn(),
            "WALDEN_DATABASE_STANDBY_DSN": make_conninfo("", host="127.0.0.1", port=str(standby.port)),
            "WALDEN_DATABASE_PATRONI": primary.rest,
        }
        with WholeServer(tmp_path / "d", **environ) as server:
            load = await Load.prepare(server.url, 4, 2, random.Random(6))
            try:
                async with Person(server.url) as observer, Person(server.url) as late:
                    for person in (observer, late):
                        await person.register()
                        for room_id in load.rooms:
                            await person.join(room_id)
                    observer.listen()
                    load.begin()
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    await asyncio.to_thread(_until, cluster, standby)
                    assert cluster.execute(SYNC_SESSIONS, primary) == [(0,)]
                    assert cluster.execute(READERS, primary) == [(0,)]
                    # What a client has just done is in its next answer, though another server gives it.
                    async with Person(server.url) as hasty:
                        await hasty.register()
                        for number in range(10):
                            room_id = await hasty.create_room(name=f"{number}")
                            hasty.since = None
                            assert room_id in (await hasty.sync())["rooms"]["join"]
                    doctor = json.loads((await asyncio.to_thread(server.walden, "doctor", "--json")).stdout)
                    said = {one["check"]: one for one in doctor if one["check"] in ("standby", "patroni", "standbys")}
                    assert {check: one["level"] for check, one in said.items()} == dict.fromkeys(said, "ok")
                    assert set(said) == {"standby", "patroni", "standbys"}
                    # The standby becomes the primary: sync goes on from it, and what is written goes there too.
                    await asyncio.to_thread(primary.kill_postgres)
                    await asyncio.to_thread(cluster.until_leader, standby)
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    await load.end()
                    last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
                    for room_id, event_id in zip(load.rooms, last, strict=True):
                        await observer.until_seen(room_id, event_id)
                    await late.sync()
                    compare(load, [observer, late])
            finally:
                await load.close()


def _until(cluster: PatroniCluster, standby: object) -> None:
    """Wait until sync streams from the standby."""
    end = time.monotonic() + RECOVERY_SECONDS
    while cluster.execute(SYNC_SESSIONS, standby) != [(1,)] or cluster.execute(READERS, standby) == [(0,)]:  # type: ignore[arg-type]
        assert time.monotonic() < end
        time.sleep(0.2)
