"""A PostgreSQL 18 cluster of the benchmark's own, fully durable, and what is asked of its databases.

Each server under test has a cluster to itself with the same binaries and settings, so that bytes of WAL belong to one server
and one server's logical decoding never reads the other's WAL. It is the cluster that `bin/up` makes when no DSN is given: an
unprivileged account, a private socket, a password.
"""

import dataclasses
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin import embedded
from eventlog.queries import Queries

SETTINGS: dict[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}
"""Parameters of both clusters beside those of every embedded cluster (bin/embedded.py, wal_level=logical among them)."""

REPORTED = (*SETTINGS, "wal_level", "jit", "max_replication_slots", "checkpoint_timeout", "wal_sync_method")
START_SECONDS = 60.0
QUERIES = Queries("bin.benchmark", "queries.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Database:
    """One database of a running cluster, asked as its superuser."""

    dsn: str

    @property
    def parts(self) -> dict[str, str]:
        """The DSN's host, port, user, password and dbname."""
        return {name: str(value) for name, value in conninfo_to_dict(self.dsn).items()}

    async def ask(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of the query named so in queries.sql; psycopg's errors pass through."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(QUERIES[query], parameters)
            return await cursor.fetchall() if cursor.description else []

    async def number(self, query: str, **parameters: Any) -> float:
        """The first column of the first row."""
        rows = await self.ask(query, **parameters)
        if not rows:
            raise RuntimeError(f"the query {query} found nothing")
        return float(rows[0][0])


class Cluster:
    """`folder` gets everything; PostgreSQL's programs are those in `programs`, or the embedded ones."""

    def __init__(self, folder: Path, programs: Path | None) -> None:
        folder.mkdir(parents=True)
        self.log = folder / "postgresql.log"
        one = embedded.cluster_in(folder, SETTINGS)
        self.one = one if programs is None else dataclasses.replace(one, programs=programs)
        self.dsn = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Makes and starts the cluster; EmbeddedError with the reason when it does not come up."""
        self.dsn = embedded.prepare(self.one)
        self.process = embedded.start(self.one, self.log)
        embedded.wait_ready(self.dsn, START_SECONDS)

    async def create_database(self) -> Database:
        """A database in UTF-8 with the C collation, which Synapse insists on and Walden compares strings by."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(QUERIES["create_database"])
        return Database(make_conninfo(self.dsn, dbname="benchmark"))

    def pids(self) -> list[int]:
        """Every process of the cluster."""
        return [process.pid for process in embedded.processes(self.one)]

    def stop(self) -> None:
        """Stops the cluster in order; may be called again."""
        process, self.process = self.process, None
        if process is not None:
            embedded.stop(self.one)
            process.wait(START_SECONDS)


def work_folder(parent: Path | None) -> Path:
    """A new folder for one run, which other users may pass through but not list."""
    folder = Path(tempfile.mkdtemp(prefix="walden-bench-", dir=parent))
    folder.chmod(0o711)
    return folder


def file_system(folder: Path) -> str:
    """The type of the file system that holds the folder, as /proc/mounts names it; '' when unknown."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    path = str(folder.resolve())
    for line in mounts:
        _, point, name, *_rest = line.split()
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind
