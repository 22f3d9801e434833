"""The operating-system account the embedded PostgreSQL runs under.

Invariant: PostgreSQL never runs as root. Started by an ordinary user it runs as that user; started by root it runs
under a user id of its own, one per installation, that no account and no process has: `nobody` is shared with other
services, and whoever shares the id can read the data. The owner of the data folder records the choice.
"""

import dataclasses
import grp
import os
import pwd
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil

# Debian leaves 1000-59999 to accounts made on the machine; the upper end is where they are rarest.
FIRST_UID, LAST_UID = 52_000, 59_999


class AccountError(Exception):
    """No account to run PostgreSQL under; the message says what would do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Numeric user and group of the database processes; `switch` when they are not our own."""

    uid: int
    gid: int
    switch: bool

    def become(self) -> None:
        """Give up root for good, in this process."""
        if self.switch:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

    def own(self, path: Path) -> None:
        """Make `path` and everything below it this account's."""
        if not self.switch:
            return
        for folder, _, files in os.walk(path):
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)
            for name in files:
                os.chown(os.path.join(folder, name), self.uid, self.gid, follow_symlinks=False)


def cluster_account(folder: Path) -> Account:
    """The account of the cluster whose data are in `folder` (which may be yet to be made). Raises AccountError."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    if folder.exists() and folder.stat().st_uid != 0:
        return Account(folder.stat().st_uid, folder.stat().st_gid, switch=True)
    taken = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    span = LAST_UID - FIRST_UID + 1
    start = zlib.crc32(os.fsencode(folder))
    for step in range(span):
        uid = FIRST_UID + (start + step) % span
        if uid not in taken and _unknown(uid) and _mapped(uid):
            return Account(uid, uid, switch=True)
    raise AccountError(
        "PostgreSQL refuses to run as root, and this container has no other user id: "
        "start Walden as an ordinary user, or set database.dsn to a database elsewhere"
    )


def bystander() -> Account:
    """An account that has a name, for initdb, which insists on one; only while the cluster is made."""
    for name in ("nobody", "daemon", "bin"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0 and _mapped(entry.pw_uid):
            return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise AccountError("no account `nobody` on this machine: set database.dsn, or start Walden as an ordinary user")


def reachable(path: Path) -> bool:
    """Whether an account that is neither root nor in root's groups can get to `path` and read and execute it."""
    path = path.resolve()
    everyone = stat.S_IXOTH | stat.S_IROTH
    return path.stat().st_mode & everyone == everyone and all(p.stat().st_mode & stat.S_IXOTH for p in path.parents)


def _unknown(number: int) -> bool:
    for lookup in (pwd.getpwuid, grp.getgrgid):
        try:
            lookup(number)
        except KeyError:
            continue
        return False
    return True


def _mapped(uid: int) -> bool:
    """Whether this user namespace has the id at all (a container may map only a few)."""
    return all(any(first <= uid < first + count for first, count in _map(kind)) for kind in ("uid_map", "gid_map"))


def _map(kind: str) -> Iterator[tuple[int, int]]:
    try:
        lines = Path("/proc/self", kind).read_text(encoding="ascii").splitlines()
    except OSError:
        lines = ["0 0 4294967295"]
    for line in lines:
        first, _, count = line.split()
        yield int(first), int(count)
