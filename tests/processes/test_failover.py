"""The primary dies under load and its synchronous standby takes over: nothing acknowledged is lost, nothing is doubled.

Patroni's own time ends when the standby takes writes; how long Walden takes from there is what the figures say. PostgreSQL dies
alone, and every fifth time with its machine, Patroni too, which is missed after its `ttl` only.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from debian import missing
from load import Load, compare
from patroni_cluster import ETCD, Node, PatroniCluster
from people import Person
from projections import differences
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("WALDEN_FAILOVER_ROUNDS", "5"))
SEED = int(os.environ.get("WALDEN_FAILOVER_SEED", "0")) or random.randrange(1, 1 << 31)
RECOVERY_SECONDS = 90.0
SENDERS, ROOMS = 8, 4


@pytest.fixture(autouse=True)
def _installed() -> None:
    if why := missing(ETCD, "etcd-server") or missing("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"):
        pytest.skip(why)


@pytest.mark.parametrize("version", [18, 15])
async def test_a_primary_that_dies_under_load_takes_no_acknowledged_event_with_it(
    version: int, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    chance = random.Random(SEED + version)
    with PatroniCluster(version) as cluster:
        cluster.execute("create database walden", dbname="postgres")
        with WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn(), WALDEN_CLIENT_PROCESSES="2") as server:
            load = await Load.prepare(server.url, SENDERS, ROOMS, chance)
            try:
                async with Person(server.url) as patient, Person(server.url, timeline_limit=3) as restless:
                    for person in (patient, restless):
                        await person.register()
                        for room_id in load.rooms:
                            await person.join(room_id)
                    patient.listen(poll=10)
                    restless.listen(poll=0.1)
                    load.begin()
                    deaths = await _deaths(cluster, server, load, chance)
                    await load.end()
                    status = await asyncio.to_thread(server.rest)
                    assert status["quarantine"] == []
                    last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
                    for person in (patient, restless):
                        for room_id, event_id in zip(load.rooms, last, strict=True):
                            await person.until_seen(room_id, event_id)
                    compare(load, [patient, restless])
                assert await asyncio.to_thread(differences, server.settings.dsn()) == {}
            finally:
                await load.close()
            said = (server.data_dir / "logs" / "roomserver-0.log").read_text(encoding="utf-8")
            if version >= 17:
                # The slots went over with the rest: nothing had to be read from the tables for want of one.
                assert "slot lost" not in said
            else:
                assert said.count("slot lost: working from the tables") >= ROUNDS
            epochs = server.rows("select reason, timeline from eventlog.epochs order by ordinal")
            assert [row["reason"] for row in epochs] == ["init"] + ["failover"] * ROUNDS
    repeats = sum(person.repeats for person in load.senders)
    figures(
        f"failovers on PostgreSQL {version} (seed {SEED}): {ROUNDS}, {load.count} events acknowledged, {repeats} requests "
        f"repeated; until the standby took writes: {', '.join(f'{how} {s:.1f} s' for how, s, _ in deaths)}; from there until "
        f"every room took messages: median {statistics.median(s for _, _, s in deaths):.1f} s, "
        f"longest {max(s for _, _, s in deaths):.1f} s"
    )


async def _deaths(
    cluster: PatroniCluster, server: WholeServer, load: Load, chance: random.Random
) -> list[tuple[str, float, float]]:
    """Kill the primary ROUNDS times: what died, seconds until the standby took writes, and from there until all rooms went on."""
    found: list[tuple[str, float, float]] = []
    for number in range(ROUNDS):
        await asyncio.to_thread(cluster.until_synchronous)
        if cluster.version >= 17:
            await asyncio.to_thread(_until_slots_are_there_too, cluster)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        primary = await asyncio.to_thread(cluster.leader)
        assert primary is not None
        machine = number % 5 == 4
        await asyncio.to_thread(_kill, cluster, primary, machine)
        died = time.monotonic()
        await asyncio.to_thread(cluster.until_leader, cluster.other(primary))
        opened = time.monotonic()
        try:
            seconds = await load.recovered(opened, RECOVERY_SECONDS)
        except TimeoutError:
            raise AssertionError(f"no message after the failover:\n{server.logs()}\n{cluster.tail()}") from None
        found.append(("the machine" if machine else "PostgreSQL", opened - died, seconds))
        if machine and number < ROUNDS - 1:
            await asyncio.to_thread(cluster.start, primary)
    return found


def _until_slots_are_there_too(cluster: PatroniCluster) -> None:
    """Wait until the standby has the durable slots as well."""
    standby = cluster.other(cluster.leader() or cluster.nodes[0])
    durable = "select slot_name from pg_replication_slots where slot_type = 'logical' and not temporary"
    wanted = set(cluster.execute(durable))
    assert len(wanted) == 2
    end = time.monotonic() + RECOVERY_SECONDS
    while set(cluster.execute(f"{durable} and synced", standby)) != wanted:
        assert time.monotonic() < end, cluster.execute("select * from pg_replication_slots", standby)
        time.sleep(0.2)


def _kill(cluster: PatroniCluster, node: Node, machine: bool) -> None:
    if machine:
        cluster.kill_machine(node)
    else:
        node.kill_postgres()
