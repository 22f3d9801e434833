"""PostgreSQL under Patroni, for tests of failover: two nodes that replicate synchronously, and an etcd, all on loopback.

Invariant: everything lives below one private directory, listens on 127.0.0.1 alone, asks for a password, never runs as root,
and goes away with the process that started it. Patroni has a virtual environment of its own, as Synapse has.

    with PatroniCluster(18) as cluster:
        cluster.until_synchronous()
        cluster.kill_machine(cluster.leader())
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
import psycopg
import yaml
from clusters import PASSWORD, USER, _give_away, binaries, unprivileged
from psycopg.conninfo import make_conninfo

from bin.ports import free_port

PATRONI: Final = ("patroni[etcd3]>=4.0", "psycopg[binary]>=3.3.2")
ETCD: Final = "/usr/bin/etcd"
START_SECONDS: Final = 120.0
TTL, LOOP_WAIT, RETRY_TIMEOUT = 20, 1, 5
"""Patroni's least ttl: a machine that died is missed after it, and the standby takes over within a loop_wait."""
WATCH: Final = """read -r _
kill -TERM $1
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 $1 2>/dev/null || break; sleep 1; done
for pid in $(cat "$2"/*/data/postmaster.pid 2>/dev/null | grep -E '^[0-9]+$' | head -n 1); do kill -INT "$pid"; done
rm -rf "$2"
"""


def patroni_python() -> Path:
    """The interpreter of an environment that has Patroni and that an unprivileged user can run; made if there is none.

    Raises LookupError, CalledProcessError.
    """
    folder = Path(tempfile.gettempdir()) / f"walden-patroni-{os.geteuid()}"
    python = folder / "bin" / "python"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _runs(str(python), "import patroni, psycopg, etcd"):
            shutil.rmtree(folder, ignore_errors=True)
            # Ours may lie below a closed folder: then the machine's own does.
            candidates = (
                getattr(sys, "_base_executable", sys.executable),
                "/usr/bin/python3",
                "/usr/local/bin/python3",
            )
            base = next((one for one in candidates if _runs(one, "import venv")), None)
            if base is None:
                raise LookupError("an unprivileged user can run no Python on this machine")
            subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
            # The test environment's pip installs it: not every Python can make an environment with a pip.
            command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *PATRONI]
            subprocess.run(command, check=True, timeout=600)
    return python


def _runs(python: str, statement: str) -> bool:
    """Whether an unprivileged user can run this interpreter, and it itself again, which Patroni does."""
    check = f"import os, sys; {statement}; sys.exit(not os.access(sys.executable, os.X_OK))"
    with contextlib.suppress(OSError):
        command = [*unprivileged(), python, "-c", check]
        return subprocess.run(command, cwd="/", env={}, capture_output=True, check=False).returncode == 0
    return False


@dataclass
class Node:
    """One member: a Patroni and its PostgreSQL."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    rest_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def rest(self) -> str:
        """Address of Patroni's REST interface."""
        return f"http://127.0.0.1:{self.rest_port}"

    def postmaster(self) -> psutil.Process | None:
        """The node's PostgreSQL, if it runs."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            process = psutil.Process(pid)
            if process.name().startswith("postgres"):
                return process
        return None

    def kill_postgres(self) -> None:
        """kill -9 of the node's PostgreSQL with all its processes."""
        postmaster = self.postmaster()
        assert postmaster is not None, f"{self.name} has no PostgreSQL to kill"
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)


class PatroniCluster:
    """Methods block: call them with `asyncio.to_thread` while people talk."""

    def __init__(
        self, version: int = 18, *, ignore_slots: bool = True, parameters: Mapping[str, str] | None = None
    ) -> None:
        found = binaries(version)
        if found is None:
            raise LookupError(f"no PostgreSQL {version} on this machine can be run as an unprivileged user")
        self.version = version
        self.bin = found
        self.ignore_slots = ignore_slots
        self.parameters = dict(parameters or {})
        shm = Path("/dev/shm")
        roomy = os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30
        self.root = Path(tempfile.mkdtemp(prefix="walden-patroni-", dir=shm if roomy else None))
        self.etcd_port = free_port()
        self.nodes = [Node(name, self.root / name) for name in ("one", "two")]
        self._etcd: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        _give_away(self.root)

    def __enter__(self) -> Self:
        try:
            self._python = patroni_python()
            self._start_etcd()
            for node in self.nodes:
                self._configure(node)
                self.start(node)
                if node is self.nodes[0]:
                    # One at a time: the one that initialises is the one that we know.
                    self._until(lambda: self.leader() is not None, "a leader")
            self.until_synchronous()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait(10)
            if node.postmaster() is not None:
                node.kill_postgres()
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait(10)
        shutil.rmtree(self.root, ignore_errors=True)

    def dsn(self, dbname: str = "walden", **more: str) -> str:
        """A connection string that finds the primary, whichever node it is."""
        parts = {
            "host": ",".join("127.0.0.1" for _ in self.nodes),
            "port": ",".join(str(node.port) for node in self.nodes),
            "target_session_attrs": "read-write",
            "user": USER,
            "password": PASSWORD,
        }
        return make_conninfo("", **{**parts, "dbname": dbname, **more})

    def node_dsn(self, node: Node, dbname: str = "walden") -> str:
        """A connection string for one node."""
        return make_conninfo(
            "", host="127.0.0.1", port=str(node.port), user=USER, password=PASSWORD, dbname=dbname, connect_timeout="3"
        )

    def execute(self, query: str, node: Node | None = None, dbname: str = "walden") -> list[tuple[Any, ...]]:
        """One statement as the superuser, on the primary unless a node is named."""
        dsn = self.dsn(dbname) if node is None else self.node_dsn(node, dbname)
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def leader(self) -> Node | None:
        """The node that takes writes now, as PostgreSQL itself says."""
        for node in self.nodes:
            with contextlib.suppress(psycopg.Error):
                if self.execute("select not pg_is_in_recovery()", node, "postgres")[0][0]:
                    return node
        return None

    def other(self, node: Node) -> Node:
        """The node that is not this one."""
        return next(one for one in self.nodes if one is not node)

    def until_leader(self, node: Node) -> None:
        """Wait until this node takes writes."""
        self._until(lambda: self.leader() is node, f"{node.name} as the leader", pause=0.05)

    def until_synchronous(self) -> None:
        """Wait until the standby is one that commits wait for, and Patroni would promote."""
        self._until(self._synchronous, "a synchronous standby")

    def _synchronous(self) -> bool:
        query = (
            "select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum') and state = 'streaming'"
        )
        with contextlib.suppress(psycopg.Error, OSError):
            leader = self.leader()
            if leader is None or self.execute(query, leader, "postgres")[0][0] != 1:
                return False
            with urllib.request.urlopen(f"{leader.rest}/cluster", timeout=5) as answer:
                members = json.load(answer)["members"]
            return any(one["role"] == "sync_standby" and one["state"] == "streaming" for one in members)
        return False

    def start(self, node: Node) -> None:
        """Start a node's Patroni, which starts its PostgreSQL."""
        command = [
            *unprivileged(),
            str(self._python),
            str(self._python.with_name("patroni")),
            str(node.folder / "patroni.yml"),
        ]
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(node.folder), "LC_ALL": "C.UTF-8"}
        with (node.folder / "log").open("ab") as log:
            node.process = subprocess.Popen(
                command, cwd=node.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._watch()

    def kill_machine(self, node: Node) -> None:
        """As when the power goes: kill -9 of Patroni and of PostgreSQL."""
        assert node.process is not None
        node.process.kill()
        node.kill_postgres()
        node.process.wait(10)
        node.process = None
        self._watch()

    def tail(self, lines: int = 40) -> str:
        """The ends of the nodes' logs, for a failing test's message."""
        parts = []
        for node in self.nodes:
            log = node.folder / "log"
            said = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
            parts.append("\n".join([f"== {node.name}", *said]))
        return "\n".join(parts)

    def _until(self, holds: Callable[[], bool], what: str, *, pause: float = 0.2) -> None:
        end = time.monotonic() + START_SECONDS
        while not holds():
            assert time.monotonic() < end, f"no {what} within {START_SECONDS:.0f} s:\n{self.tail()}"
            time.sleep(pause)

    def _watch(self) -> None:
        """Ends and removes everything when this process ends, however it does."""
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
        processes = [self._etcd, *(node.process for node in self.nodes)]
        pids = " ".join(str(one.pid) for one in processes if one is not None)
        self._watcher = subprocess.Popen(
            ["sh", "-c", WATCH, "watch", pids, str(self.root)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def _start_etcd(self) -> None:
        folder = self.root / "etcd"
        folder.mkdir(mode=0o700)
        _give_away(folder)
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        command = [*unprivileged(), ETCD, f"--data-dir={folder}", "--name=only", "--unsafe-no-fsync"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=only={peer}",
        ]
        with (self.root / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen(command, cwd=folder, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{client}/health", timeout=2) as answer:
                return json.load(answer)["health"] == "true"
            return False

        self._until(answers, "etcd")

    def _configure(self, node: Node) -> None:
        parameters = {
            "wal_level": "logical",
            "hot_standby": "on",
            "hot_standby_feedback": "on",
            "max_replication_slots": "30",
            "max_wal_senders": "30",
            "max_connections": "150",
            "max_slot_wal_keep_size": "1GB",
            "shared_buffers": "32MB",
            "max_wal_size": "256MB",
            "wal_retrieve_retry_interval": "500ms",
            "unix_socket_directories": "",
            # kill -9 loses nothing that the kernel has.
            "fsync": "off",
        }
        if self.version >= 17:
            parameters["sync_replication_slots"] = "on"
        login = {"username": USER, "password": PASSWORD}
        local = "host all all 127.0.0.1/32 scram-sha-256"
        replicas = "host replication all 127.0.0.1/32 scram-sha-256"
        dcs: dict[str, Any] = {
            "ttl": TTL,
            "loop_wait": LOOP_WAIT,
            "retry_timeout": RETRY_TIMEOUT,
            "synchronous_mode": True,
            # A PostgreSQL that died is not waited for where there is another.
            "primary_start_timeout": 0,
            "maximum_lag_on_failover": 1 << 20,
            "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": parameters | self.parameters},
        }
        if self.ignore_slots:
            dcs["ignore_slots"] = [{"type": "logical", "database": "walden", "plugin": "pgoutput"}]
        node.folder.mkdir(mode=0o700)
        configuration = {
            "scope": "walden-test",
            "name": node.name,
            "restapi": {"listen": f"127.0.0.1:{node.rest_port}", "connect_address": f"127.0.0.1:{node.rest_port}"},
            "etcd3": {"host": f"127.0.0.1:{self.etcd_port}"},
            "bootstrap": {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"]},
            "postgresql": {
                "listen": f"127.0.0.1:{node.port}",
                "connect_address": f"127.0.0.1:{node.port}",
                "data_dir": str(node.folder / "data"),
                "bin_dir": str(self.bin),
                "pgpass": str(node.folder / "pgpass"),
                "pg_hba": [replicas, local],
                "authentication": {"superuser": login, "replication": login, "rewind": login},
            },
        }
        path = node.folder / "patroni.yml"
        path.write_text(yaml.safe_dump(configuration))
        path.chmod(0o600)
        for one in (node.folder, path):
            _give_away(one)
