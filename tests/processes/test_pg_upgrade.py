"""pg_upgrade, as an administrator does it: nothing is lost, and clients notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from clusters import Cluster
from debian import missing
from people import Person
from restores import SMALL
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]


def upgraded(old: Cluster, new: Cluster) -> None:
    """Both clusters stopped, what was in the old one is in the new one."""
    old.stop()
    new.stop()
    # The newer version makes checksums unless it is told not to, and both have to agree.
    new.run("pg_checksums", "--disable", f"--pgdata={new.data}")
    new.run(
        "pg_upgrade",
        f"--old-bindir={old.bin}",
        f"--new-bindir={new.bin}",
        f"--old-datadir={old.data}",
        f"--new-datadir={new.data}",
        f"--socketdir={new.root}",
        # The clusters of tests have their settings on the command line; the old one does not start with slots and without these.
        "--old-options=-c wal_level=logical -c max_replication_slots=40",
        "--username=postgres",
        "--no-sync",
    )
    new.start()


async def test_after_pg_upgrade_a_planned_recovery_keeps_every_token(tmp_path: Path) -> None:
    if why := missing("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"):
        pytest.skip(why)
    with Cluster(15, SMALL) as old, Cluster(18, SMALL) as new:
        old.execute("create database walden")
        server = WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=old.dsn("walden"))
        try:
            await asyncio.to_thread(server.start)
            async with Person(server.url) as person:
                await person.register()
                room_id = await person.create_room(name="Pond")
                said = await person.send(room_id, "before", "kept.1")
                await person.sync()
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(upgraded, old, new)
                server.environ["WALDEN_DATABASE_DSN"] = new.dsn("walden")
                refused = await asyncio.to_thread(server.walden, "up")
                assert refused.returncode == 1 and "walden recover" in refused.stderr, refused.stderr
                done = await asyncio.to_thread(server.walden, "recover", "--planned")
                assert done.returncode == 0, done.stdout + done.stderr
                await asyncio.to_thread(server.start)
                assert "rooms" not in await person.sync()
                assert await person.send(room_id, "before", "kept.1") == said
                after = await person.send(room_id, "after")
                person.listen()
                await person.until_seen(room_id, after)
                assert person.gaps == 0
                assert person.event_ids(room_id)[-2:] == [said, after]
                await asyncio.to_thread(server.rest)
        finally:
            server.__exit__(None, None, None)
