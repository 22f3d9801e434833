"""Pooled queries through PgBouncer, in transaction pooling mode, as Debian packages it; everything else goes past it."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from clusters import PASSWORD, USER, Cluster, unprivileged
from debian import missing
from people import Person, segment
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from whole_server import WholeServer

from bin.ports import free_port

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

PGBOUNCER = "/usr/sbin/pgbouncer"
POOL = 5
"""Server connections per login: fewer than clients, so that every client meets several; more than transactions stay open."""


class Bouncer:
    """A PgBouncer in front of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        version = subprocess.run([PGBOUNCER, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"PgBouncer (\d+)\.(\d+)", version)
        assert found is not None, version
        self.prepares = (int(found[1]), int(found[2])) >= (1, 21)
        self.port = free_port()
        folder = cluster.root / "pgbouncer"
        folder.mkdir()
        folder.chmod(0o755)
        users = folder / "users"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        self.log = folder / "log"
        self.configuration = folder / "pgbouncer.ini"
        self.configuration.write_text(
            f"""\
[databases]
* = host={cluster.root} port={cluster.port} auth_user={USER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
auth_query = select usename, passwd from pg_shadow where usename = $1
admin_users = {USER}
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 200
{"max_prepared_statements = 200" if self.prepares else ""}
"""
        )
        self.process: subprocess.Popen[bytes] | None = None

    def dsn(self, dbname: str) -> str:
        """The way through it."""
        return make_conninfo(host="127.0.0.1", port=self.port, dbname=dbname, user=USER, password=PASSWORD)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It runs while the block does."""
        with self.log.open("ab") as log:
            command = [*unprivileged(), PGBOUNCER, str(self.configuration)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    psycopg.connect(self.dsn("postgres"), connect_timeout=5, prepare_threshold=None).close()
                    break
                except psycopg.OperationalError:
                    assert time.monotonic() < end and process.poll() is None, self.log.read_text()
                    time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait(10)

    def queries(self) -> dict[str, int]:
        """How many queries went through it, by database."""
        # Its console knows the simple protocol alone.
        with psycopg.connect(self.dsn("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor) as console:
            cursor = console.execute("show stats")
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {row["database"]: int(row["total_query_count"]) for row in rows}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """With full durability, for the doctor minds."""
    if why := missing(PGBOUNCER, "pgbouncer"):
        pytest.skip(why)
    with Cluster(18, {"fsync": "on", "max_slot_wal_keep_size": "1GB"}) as one:
        one.execute("create database walden")
        yield one


async def test_a_whole_walden_runs_through_pgbouncer(cluster: Cluster, tmp_path: Path) -> None:
    bouncer = Bouncer(cluster)
    server = WholeServer(
        tmp_path / "d",
        WALDEN_DATABASE_DSN=bouncer.dsn("walden"),
        WALDEN_DATABASE_DIRECT_DSN=cluster.dsn("walden"),
        WALDEN_DATABASE_POOL_MAX="12",
        WALDEN_DATABASE_PREPARE="on" if bouncer.prepares else "off",
    )
    with bouncer.running(), server:
        people = [Person(server.url) for _ in range(6)]
        async with contextlib.AsyncExitStack() as stack:
            for person in people:
                await stack.enter_async_context(person)
            await asyncio.gather(*(person.register() for person in people))
            room_id = await people[0].create_room(name="pooled")
            await asyncio.gather(*(person.join(room_id) for person in people[1:]))
            people[-1].listen()
            # More at once than there are server connections.
            sent = await asyncio.gather(
                *(person.send(room_id, f"{n} of {person.name}") for person in people for n in range(10))
            )
            await asyncio.gather(*(people[-1].until_seen(room_id, event_id) for event_id in sent))
            page = await people[0].call("GET", f"rooms/{segment(room_id)}/messages", dir="b", limit="20")
            assert len(page["chunk"]) == 20
            tags = [f"user/{segment(people[0].user_id)}/rooms/{segment(room_id)}/tags/u.{n}" for n in range(6)]
            await asyncio.gather(*(people[0].call("PUT", tag, {}) for tag in tags))
            kept = await people[0].call("GET", tags[0].rpartition("/")[0])
            assert len(kept["tags"]) == 6
        await asyncio.to_thread(server.rest)
        assert bouncer.queries()["walden"] > 100
        assert await _findings(server) == []
    if not bouncer.prepares:
        await _says_what_is_wrong(bouncer, server)


async def _says_what_is_wrong(bouncer: Bouncer, server: WholeServer) -> None:
    """The doctor, when PgBouncer does not do what the settings want of it."""
    login = str(conninfo_to_dict(server.settings.dsn("writer"))["user"])
    with bouncer.running():
        server.environ["WALDEN_DATABASE_PREPARE"] = "on"
        found = await _findings(server)
        assert {one["level"] for one in found} == {"error"}
        assert "database.prepare = false" in found[0]["remedy"]
        server.environ["WALDEN_DATABASE_PREPARE"] = "off"
    with psycopg.connect(server.settings.dsn(direct=True), autocommit=True) as connection:
        connection.execute(sql.SQL("alter role {} reset all").format(sql.Identifier(login)))
    with bouncer.running():
        (finding,) = await _findings(server)
        assert finding["level"] == "warning" and "statement_timeout" in finding["text"]
        with psycopg.connect(server.settings.dsn(direct=True), autocommit=True) as connection:
            connection.execute(finding["remedy"].encode())
    with bouncer.running():
        assert await _findings(server) == []


async def _findings(server: WholeServer) -> list[dict[str, str]]:
    """What the doctor says of the pooler that is not fine, and any error."""
    said = (await asyncio.to_thread(server.walden, "doctor", "--json")).stdout
    return [
        one
        for one in json.loads(said)
        if one["level"] == "error" or (one["check"] == "pooler" and one["level"] != "ok")
    ]
