"""Backups and restores of test clusters, as a database administrator does them: base backup, archived WAL, snapshots, dumps.

Invariant: a restore leaves the cluster at its old place, with its old port and socket, so that a DSN stays what it is.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clusters import Cluster

REPLAY_SECONDS: Final = 60.0
SMALL: Final = {"max_connections": "80", "max_replication_slots": "40", "max_wal_senders": "40"}


class ArchivedCluster(Cluster):
    """A cluster whose WAL is archived, in a folder of its own beside the data."""

    def __init__(self, version: int = 18, conf: Mapping[str, str] | None = None) -> None:
        super().__init__(version, {**SMALL, **(conf or {})})
        self.archive = self._folder("archive")
        copy = f'test ! -f "{self.archive}/%f" && cp "%p" "{self.archive}/%f"'
        self.conf |= {"archive_mode": "on", "archive_command": copy}
        self._backups = 0

    def _folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700)
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Give a file to the server's account."""
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def base_backup(self) -> Path:
        """pg_basebackup of the running server, with the WAL that it needs; its folder."""
        self._backups += 1
        path = self.root / f"backup-{self._backups}"
        where = [f"--host={self.root}", f"--port={self.port}", "--username=postgres"]
        self.run("pg_basebackup", *where, f"--pgdata={path}", "--checkpoint=fast", "--wal-method=stream", "--no-sync")
        return path

    def archive_all(self) -> None:
        """Wait until all WAL that was written is in the archive."""
        ((segment,),) = self.execute("select pg_walfile_name(pg_switch_wal())")
        end = time.monotonic() + REPLAY_SECONDS
        while not (self.archive / str(segment)).exists():
            assert time.monotonic() < end, f"{segment} is not archived:\n{self.tail()}"
            time.sleep(0.05)

    def restore(self, backup: Path, **target: str) -> None:
        """Point-in-time recovery of a stopped cluster: the backup in place of the data, then WAL from the archive up to the
        target (`recovery_target_time='…'`; none: to its end). Returns when the server takes writes."""
        self.replace_data(backup)
        signal = self.data / "recovery.signal"
        signal.touch()
        self.own(signal)
        before = dict(self.conf)
        self.conf |= {"restore_command": f'cp "{self.archive}/%f" "%p"', **target}
        if target:
            self.conf["recovery_target_action"] = "promote"
        try:
            self.start()
            self.wait_promoted()
        finally:
            self.conf = before

    def wait_promoted(self) -> None:
        """Wait until recovery has ended."""
        end = time.monotonic() + REPLAY_SECONDS
        while self.execute("select pg_is_in_recovery()") != [(False,)]:
            assert time.monotonic() < end, f"recovery does not end:\n{self.tail()}"
            time.sleep(0.05)

    def replace_data(self, source: Path) -> None:
        """The stopped cluster's data becomes a copy of a folder."""
        assert self.process is None
        shutil.rmtree(self.data)
        self.copy(source, self.data)

    def copy(self, source: Path, target: Path) -> None:
        """Copy a folder of the server's account."""
        self.run_shell(f'cp -a "{source}" "{target}"')

    def run_shell(self, command: str) -> None:
        """A shell command as the user of the tests; `cp -a` keeps the owner."""
        if os.system(command):
            raise RuntimeError(f"failed: {command}")

    def now(self) -> str:
        """The server's clock, as a recovery target."""
        ((moment,),) = self.execute("select clock_timestamp()::text")
        return str(moment)


def dump(cluster: Cluster, path: Path, dbname: str = "walden") -> None:
    """pg_dump of a database."""
    cluster.run("pg_dump", *_whom(cluster), "--format=custom", f"--file={path}", dbname)


def load_dump(cluster: Cluster, path: Path, dbname: str) -> None:
    """pg_restore into a new database. Roles are the cluster's, and a dump has none: `walden recover` makes and grants them."""
    cluster.execute(f"create database {dbname} template template0")
    options = ["--no-owner", "--no-privileges", "--exit-on-error", f"--dbname={dbname}"]
    cluster.run("pg_restore", *_whom(cluster), *options, str(path))


def _whom(cluster: Cluster) -> list[str]:
    return [f"--host={cluster.root}", f"--port={cluster.port}", "--username=postgres"]
