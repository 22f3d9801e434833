"""What a former primary has kept is dropped there, and nothing else anywhere."""

from __future__ import annotations

import asyncio

import pytest
from clusters import Cluster, binaries
from psycopg.conninfo import conninfo_to_dict

from eventlog.leftover_slots import drop_leftovers, nodes


@pytest.mark.parametrize(
    ("dsn", "found"),
    [
        ("host=a dbname=w", []),
        ("dbname=w", []),
        (
            "host=a,b,c port=5433 dbname=w target_session_attrs=read-write",
            [("a", "5433"), ("b", "5433"), ("c", "5433")],
        ),
        ("host=a,b port=1,2 dbname=w connect_timeout=9", [("a", "1"), ("b", "2")]),
        ("hostaddr=192.0.2.1,192.0.2.2", [(None, None), (None, None)]),
    ],
)
def test_a_dsn_that_names_several_servers_is_taken_apart(dsn: str, found: list[tuple[str | None, str | None]]) -> None:
    parts = [conninfo_to_dict(one) for one in nodes(dsn)]
    assert [(one.get("host"), one.get("port")) for one in parts] == found
    assert all(one["target_session_attrs"] == "any" for one in parts)
    assert len({one.get("hostaddr", one.get("host")) for one in parts}) == len(found)


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("version", [18, 15])
def test_only_a_standby_loses_slots_and_only_those_of_this_database(version: int) -> None:
    if binaries(version) is None:
        pytest.skip(f"there is no PostgreSQL {version} on this machine")
    with Cluster(version) as cluster:
        for name in ("walden", "neighbour"):
            cluster.execute(f"create database {name}")
        ((oid,),) = cluster.execute("select oid::bigint from pg_database where datname = 'walden'")
        ours = {f"walden_{oid}_outputs", f"walden_{oid}_roomserver_s0", f"walden_{oid}_roomserver_s12"}
        others = {f"walden_{oid}_sync_x", "walden_1_outputs", "debezium"}
        for name in sorted(ours | others):
            cluster.execute(f"select pg_create_logical_replication_slot('{name}', 'pgoutput')", "walden")
        cluster.execute("select pg_create_logical_replication_slot('of_another', 'pgoutput')", "neighbour")
        cluster.execute("create role mover login replication password 'p'")
        mover = cluster.dsn("walden", user="mover", password="p")
        assert asyncio.run(drop_leftovers(mover)) == []
        cluster.stop()
        # Nobody sends it anything, but it is in recovery.
        (cluster.data / "standby.signal").touch()
        cluster.start()
        assert set(asyncio.run(drop_leftovers(mover))) == ours
        assert asyncio.run(drop_leftovers(mover)) == asyncio.run(drop_leftovers(mover, promoted=True)) == []
        left = cluster.execute("select slot_name from pg_replication_slots")
        assert {str(row[0]) for row in left} == others | {"of_another"}
