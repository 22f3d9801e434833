"""The oldest PostgreSQL that is promised, as Debian packages it: everything there works as on the newest."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import Cluster
from debian import missing
from people import Person, segment
from psycopg.conninfo import conninfo_to_dict
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
CORE = (
    "tests/roomserver/test_service.py",
    "tests/roomserver/test_projections.py",
    "tests/eventlog/test_slots.py",
    "tests/sql",
)
"""Tests of what differs between versions if anything does: slots, streams, and everything written in SQL."""


# Durable and bounded, as `walden doctor` wants it.
CONF = {"fsync": "on", "max_slot_wal_keep_size": "1GB"}


@pytest.fixture(autouse=True)
def _installed() -> None:
    if why := missing("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"):
        pytest.skip(why)


async def _typing(person: Person, room_id: str, seconds: float = 30.0) -> list[str]:
    """Who types in a room, as soon as the person's sync loop says that somebody does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for event in person.ephemeral.get(room_id, ()):
            if event["type"] == "m.typing" and event["content"]["user_ids"]:
                return list(event["content"]["user_ids"])
        await asyncio.sleep(0.05)
    return []


async def test_a_whole_walden_runs_on_postgresql_15(tmp_path: Path) -> None:
    with Cluster(15, CONF) as cluster:
        await _run(cluster, tmp_path)


async def _run(cluster: Cluster, tmp_path: Path) -> None:
    cluster.execute("create database walden")
    server = WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))
    with server:
        async with Person(server.url) as alice, Person(server.url) as bob:
            await alice.register()
            await bob.register()
            room_id = await alice.create_room(name="fifteen")
            await bob.join(room_id)
            bob.listen()
            sent = [await alice.send(room_id, f"message {number}") for number in range(10)]
            await bob.until_seen(room_id, sent[-1])
            assert [e for e in bob.event_ids(room_id) if e in sent] == sent
            # A logical message, which takes another way than entries do.
            path = f"rooms/{segment(room_id)}/typing/{segment(alice.user_id)}"
            await alice.call("PUT", path, {"typing": True, "timeout": 30_000})
            assert await _typing(bob, room_id) == [alice.user_id]
        status = await asyncio.to_thread(server.rest)
        assert {one["name"] for one in status["components"]} >= {"api", "roomserver-0", "maintenance"}
        doctor = await asyncio.to_thread(server.walden, "doctor", "--json")
        findings = json.loads(doctor.stdout)
        assert [one for one in findings if one["level"] == "error"] == [], doctor.stdout
        assert any(one["text"].startswith("PostgreSQL 15.") for one in findings)
        checked = await asyncio.to_thread(server.walden, "rebuild", "all", "--check")
        assert (checked.returncode, checked.stdout) == (0, "no differences\n"), checked
    # And again on what is there.
    with server:
        async with Person(server.url) as carol:
            await carol.register()
            await carol.join(room_id)
            await carol.sync()
            assert set(sent) <= set(carol.event_ids(room_id))


def test_the_core_is_the_same_on_postgresql_15() -> None:
    with Cluster(15, {"max_replication_slots": "40", "max_wal_senders": "40"}) as cluster:
        parts = conninfo_to_dict(cluster.dsn())
        where = [f"--postgresql-{name}={parts[name]}" for name in ("host", "port", "user", "password")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-m", "postgres and not slow", *where, *CORE],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-5000:]
